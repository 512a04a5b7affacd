"""``python -m kvstore.cli``: the way in when no script is installed."""

import sys

from kvstore.cli.main import main

sys.exit(main())
