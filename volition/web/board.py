"""The board as an ASGI application. It keeps no games: every request brings its own moves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates

from volition.web.game import Game, read, record, state
from volition.web.guard import Guard, Refused, read_object, refused
from volition.web.opponent import LONGEST, Opponent

HERE = Path(__file__).parent
SIZES = (5, 7, 9, 11, 13, 15, 17, 19)  # what the page offers of those that the opponent plays
SECONDS = (0.1, 0.5, 1, 3, 10, 30)


def create(opponent: Opponent) -> Starlette:
    """The application for people to play with this opponent."""
    templates = Jinja2Templates(HERE / "templates")
    rules = opponent.player.rules

    def page(request: Request) -> Response:
        context = {
            "opponent": opponent.name,
            "size": rules.size,
            "sizes": sorted({*SIZES, rules.size} & opponent.sizes),
            "komi": rules.komi,
            "seconds": opponent.seconds,
            "times": sorted({*SECONDS, opponent.seconds} & {t for t in (*SECONDS, opponent.seconds) if t <= LONGEST}),
        }
        return templates.TemplateResponse(request, "board.html", context)

    async def given(request: Request) -> tuple[Game, dict[str, Any]]:
        body = await read_object(request)
        return await run_in_threadpool(read, body, opponent.sizes), body

    async def position(request: Request) -> Response:
        game, _ = await given(request)
        return JSONResponse(state(game))

    def search(hint: bool) -> Callable[[Request], Any]:
        async def answer(request: Request) -> Response:
            game, body = await given(request)
            return JSONResponse(await opponent.ask(game, body, hint))

        return answer

    async def file(request: Request) -> Response:
        game, body = await given(request)
        return PlainTextResponse(record(game, body, opponent.name), media_type="application/x-go-sgf")

    return Starlette(
        routes=[
            Route("/", page),
            Route("/position", position, methods=["POST"]),
            Route("/reply", search(hint=False), methods=["POST"]),
            Route("/hint", search(hint=True), methods=["POST"]),
            Route("/game.sgf", file, methods=["POST"]),
            Mount("/static", StaticFiles(directory=HERE / "static")),
        ],
        middleware=[Middleware(Guard)],
        exception_handlers={Refused: refused},
    )
