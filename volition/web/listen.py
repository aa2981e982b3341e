"""A page of ours at an address, until Ctrl-C."""

import uvicorn
from starlette.types import ASGIApp

from volition.errors import VolitionError


def listen(app: ASGIApp, host: str, port: int, what: str) -> None:
    """Serve `app`, called `what` on the terminal."""
    print(f"{what} at http://{host}:{port}  (Ctrl-C ends it)", flush=True)
    try:
        uvicorn.run(app, host=host, port=port, log_level="warning", server_header=False)
    except SystemExit:  # uvicorn has said on stderr why
        raise VolitionError(f"no page at {host}:{port}; is the port taken? give another --port") from None
