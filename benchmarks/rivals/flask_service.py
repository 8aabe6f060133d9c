"""The tutorials' kind of service: Flask's own server, one image at a time, the model in PyTorch eager.

    python -m benchmarks.rivals.flask_service BUNDLE [--port P]

Kinder than the tutorials in two ways: the model is loaded once, and searches with Showtell's code.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from flask import Flask, jsonify, request

from showtell.captioner import Captioner


def make_app(captioner: Captioner) -> Flask:
    """Returns the service."""
    app = Flask(__name__)

    @app.post("/caption")
    def caption() -> Any:
        [picture] = captioner.caption(request.files["image"].read(), workers=1)
        return jsonify({"Prediction Caption:": picture.text})

    return app


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until it is killed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rivals.flask_service", description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args(argv)
    app = make_app(Captioner.load(arguments.bundle, engine="torch"))
    app.run(host="127.0.0.1", port=arguments.port, threaded=False)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
