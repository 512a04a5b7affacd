"""How do connections become private, and who is at the other end?"""
