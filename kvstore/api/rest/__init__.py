"""How does a service keep its configuration here with curl alone? Keys are paths, values bodies.

``PUT | GET | HEAD | DELETE /v1/kv/{key}``. The key is everything after ``/v1/kv/``, with percent
escapes decoded, byte for byte: ``/v1/kv/config/db`` is the key ``config/db``. A key that begins
with a slash shows as two (``/v1/kv//etc/passwd``) or, where something on the way merges those, as
``%2F``.
"""
