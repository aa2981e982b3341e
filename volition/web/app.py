"""The labelling page as an ASGI application: pages, requests of the page's script, and images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import sqlalchemy as sa
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates

from volition.data.labels import IMAGES, Store
from volition.web import people, work
from volition.web.guard import Guard, Refused, read, read_object, refused

HERE = Path(__file__).parent
COOKIE = "volition_label"


def create(store: Store) -> Starlette:
    """The application on this store."""
    templates = Jinja2Templates(HERE / "templates")

    def who(request: Request) -> people.Labeler | None:
        return people.signed_in(store, request.cookies.get(COOKIE))

    def page(request: Request) -> Response:
        labeler = who(request)
        if labeler is None:
            return RedirectResponse("/sign-in", 303)
        task = work.task(store, labeler.id)
        context = {"labeler": labeler, "task": task, "progress": work.progress(store, labeler.id), "flags": work.FLAGS}
        return templates.TemplateResponse(request, "label.html", context)

    def ask(request: Request) -> Response:
        return RedirectResponse("/", 303) if who(request) else templates.TemplateResponse(request, "sign_in.html")

    async def sign_in(request: Request) -> Response:
        fields = parse_qs((await read(request)).decode(errors="replace"))
        cookie = await run_in_threadpool(people.sign_in, store, fields.get("token", [""])[0].strip())
        if cookie is None:
            context = {"wrong": "Nobody has this token. Ask whoever runs this page for a new one."}
            return templates.TemplateResponse(request, "sign_in.html", context, status_code=401)
        answer = RedirectResponse("/", 303)
        secure = request.url.scheme == "https"
        answer.set_cookie(COOKIE, cookie, int(people.SESSION), httponly=True, samesite="strict", secure=secure)
        return answer

    async def given(request: Request) -> tuple[people.Labeler, dict[str, Any]]:
        """Who sends what: refused unless signed in, with this session's CSRF token and a small JSON object."""
        labeler = await run_in_threadpool(who, request)
        if labeler is None:
            raise Refused(401, "you are signed out; sign in again, nothing is lost")
        if not people.equal(request.headers.get("x-csrf-token", ""), labeler.csrf):
            raise Refused(403, "this page is from an older sign-in; reload it")
        body = await read_object(request)
        return labeler, body

    def action(do: Callable[[people.Labeler, dict[str, Any]], None]) -> Callable[[Request], Any]:
        async def answer(request: Request) -> Response:
            labeler, body = await given(request)
            if type(body.get("assignment")) is not int or not 0 < body["assignment"] < 2**31:
                raise Refused(400, "the request names no assignment")
            await run_in_threadpool(do, labeler, body)
            return JSONResponse({"saved": True})

        return answer

    async def sign_out(request: Request) -> Response:
        await given(request)
        await run_in_threadpool(people.sign_out, store, request.cookies[COOKIE])
        answer = JSONResponse({"saved": True})
        answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return answer

    def image(request: Request) -> Response:
        if who(request) is None:
            return PlainTextResponse("sign in first", 401)
        with store.read() as connection:
            row = connection.execute(sa.select(IMAGES).where(IMAGES.c.digest == request.path_params["digest"])).first()
        if row is None:
            return PlainTextResponse("there is no such image", 404)
        # its name is the digest of its bytes: what is there never changes
        keep = {"cache-control": "private, max-age=86400, immutable"}
        return Response(row.data, media_type=f"image/{row.kind}", headers=keep)

    return Starlette(
        routes=[
            Route("/", page),
            Route("/sign-in", ask),
            Route("/sign-in", sign_in, methods=["POST"]),
            Route("/sign-out", sign_out, methods=["POST"]),
            Route("/rank", action(lambda who, b: work.rank(store, who.id, b["assignment"], b.get("key", ""), b)),
                  methods=["POST"]),
            Route("/skip", action(lambda who, b: work.skip(store, who.id, b["assignment"])), methods=["POST"]),
            Route("/undo", action(lambda who, b: work.undo(store, who.id, b["assignment"])), methods=["POST"]),
            Route("/images/{digest}", image),
            Mount("/static", StaticFiles(directory=HERE / "static")),
        ],
        middleware=[Middleware(Guard)],
        exception_handlers={Refused: refused},
    )  # fmt: skip
