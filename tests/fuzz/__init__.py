"""Does every answer, to whatever anybody may ask, fit the document of the API?"""
