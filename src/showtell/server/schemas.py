"""What goes in and out, as OpenAPI says it. These models check what comes in; tests hold what goes out to them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_BEAM = 10
MAX_COUNT = 10
MAX_SEED = 2**63 - 1
MAX_INCLUDED = 3  # entries of `include`; each takes as much time again as those before it
MAX_WORDS = 100  # entries of `exclude`
MAX_WORD = 100  # characters of one entry
MAX_NAME = 200  # characters of an image's name

Word = Annotated[str, Field(min_length=1, max_length=MAX_WORD)]


class _Input(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class CaptionOptions(_Input):
    """How captions are searched for and what is told of them. What is left out is as in the model's recipe."""

    method: Literal["greedy", "beam", "sample"] | None = Field(
        default=None, description="The search. With `stream`, greedy by default."
    )
    beam: int | None = Field(
        default=None, ge=1, le=MAX_BEAM, description="With beam search: its width; 3 to 5 is best."
    )
    count: int | None = Field(default=None, ge=1, le=MAX_COUNT, description="Captions per image, best first.")
    temperature: float | None = Field(
        default=None, gt=0, le=100, description="With `sample`: below 1 is safer, above 1 bolder."
    )
    top_k: int | None = Field(
        default=None,
        ge=0,
        le=1_000_000,
        description="With `sample`: only from so many likeliest words; 0 means all.",
    )
    top_p: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="With `sample`: only from the likeliest words that hold this share.",
    )
    seed: int | None = Field(
        default=None,
        ge=0,
        le=MAX_SEED,
        description="With `sample`: equal seeds give an image equal captions.",
    )
    include: list[Word] = Field(
        default_factory=list,
        max_length=MAX_INCLUDED,
        description="Words and phrases that every caption must hold (beam search); `dog|puppy`: either will do.",
    )
    exclude: list[Word] = Field(
        default_factory=list, max_length=MAX_WORDS, description="Words and phrases that no caption may hold."
    )
    alt_text: bool = Field(
        default=False, description="Also write captions as alt text: a sentence of at most 125 characters."
    )
    min_confidence: float = Field(
        default=0.0, ge=0, le=1, description="Leave out captions that are less sure (calibrated models only)."
    )
    explain: bool = Field(
        default=False, description="Also say where the model looked for each word (models with attention)."
    )
    stream: bool = Field(
        default=False,
        description="Answer with `text/event-stream`: words as they are decided (greedy and sampling).",
    )


class UrlImage(_Input):
    """An image on the web."""

    url: str = Field(min_length=1, max_length=8000, description="http or https, at a public address.")


class Base64Image(_Input):
    """An image inside of the JSON."""

    base64: str = Field(min_length=1, description="The bytes of the file (RFC 4648, section 4).")
    name: str | None = Field(default=None, max_length=MAX_NAME, description="What the answer calls it.")


class CaptionRequest(CaptionOptions):
    """Images with the options for all of them."""

    images: list[UrlImage | Base64Image] = Field(min_length=1)


class ProblemDetails(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str = Field(description="Names the kind of problem; stays the same.")
    title: str
    status: int
    detail: str = Field(description="What was wrong, where, and what to do.")
    request_id: str
    errors: list[dict[str, str]] | None = Field(
        default=None, description="`where` and `what` of each value that is wrong."
    )


class WordAnswer(BaseModel):
    """One word of a caption."""

    word: str
    probability: float = Field(description="Of the word after those before it.")
    confidence: float | None = Field(
        default=None, description="The chance that people would use it, too; calibrated models."
    )


class Explanation(BaseModel):
    """Where the model looked for each word."""

    method: str
    size: list[int] = Field(description="Width and height of the upright image.")
    box: list[float] = Field(description="What the maps cover: left, top, right, bottom in its pixels.")
    grid: list[int] = Field(description="Rows and columns of the maps.")
    maps: list[list[list[float]]] = Field(description="For each word rows of shares, which sum to 1.")


class CaptionAnswer(BaseModel):
    """One caption."""

    caption: str
    score: float = Field(description="What captions of one image are ranked by; a mean log-probability.")
    confidence: float | None = Field(default=None, description="0 to 1; calibrated models.")
    alt: str | None = Field(default=None, description="The caption as alt text, where asked for.")
    needs_review: bool | None = Field(
        default=None, description="Whether somebody should read the alt text first."
    )
    words: list[WordAnswer]
    explanation: Explanation | None = None


class ImageAnswer(BaseModel):
    """One image: captions, or why there are none."""

    name: str = Field(description="The file's name, the URL without its query, or `image N`.")
    sha256: str | None = Field(default=None, description="Of the file; null if it could not be fetched.")
    captions: list[CaptionAnswer] | None = Field(
        default=None, description="Best first; empty where none was sure enough."
    )
    cached: bool | None = Field(default=None, description="Whether the captions were written before.")
    timings: dict[str, float] | None = Field(
        default=None,
        description="Milliseconds: fetch, decode, wait, encode, search; the last two of its whole batch. In a stream "
        "also first_word, from the beginning of the search.",
    )
    error: ProblemDetails | None = None


class ModelName(BaseModel):
    """Which captioner wrote."""

    name: str
    digest: str = Field(description="SHA-256 of its manifest, which has the digests of all its files.")
    version: str = Field(description="Of Showtell.")


class CaptionsAnswer(BaseModel):
    """The captions of all images of a request, in their order."""

    request_id: str
    model: ModelName
    images: list[ImageAnswer]
    timings: dict[str, float] = Field(description="Milliseconds: body (until it had come), total.")


class WordEvent(BaseModel):
    """A word of a stream, as soon as it is decided."""

    image: int = Field(description="Which image of the request; the first is 0.")
    sample: int = Field(description="Which of its captions.")
    word: str


class ImageEvent(ImageAnswer):
    """An image of a stream that is done, or that failed."""

    image: int = Field(description="Which image of the request; the first is 0.")


class DoneEvent(BaseModel):
    """The end of a stream."""

    request_id: str
    model: ModelName
    timings: dict[str, float] = Field(description="Milliseconds: body (until it had come), total.")


class ModelAnswer(ModelName):
    """A captioner and what it can do."""

    vocabulary: int = Field(description="Words that it knows.")
    attention: bool = Field(description="Whether `explain` works.")
    calibrated: bool = Field(description="Whether captions have a confidence.")
    grid: list[int] = Field(description="Rows and columns of what it looks at.")
    engine: str
    precision: str
    defaults: dict[str, Any] = Field(description="How it searches unless told otherwise.")


class LimitsAnswer(BaseModel):
    """What one request may have."""

    images: int
    body_bytes: int
    pixels: int
    seconds: float
    urls: bool = Field(description="Whether images may be given as URLs.")
    key: bool = Field(description="Whether a key is needed.")


class ModelsAnswer(BaseModel):
    """What captions here."""

    models: list[ModelAnswer]
    limits: LimitsAnswer


class TutorialAnswer(BaseModel):
    """The answer of the classic tutorial's service."""

    caption: str = Field(alias="Prediction Caption:")


class StateAnswer(BaseModel):
    """Whether the service is well."""

    status: Literal["ok"]


EVENTS: dict[str, type[BaseModel]] = {  # of a stream, by name; `error` is what breaks after its beginning
    "word": WordEvent,
    "image": ImageEvent,
    "done": DoneEvent,
    "error": ProblemDetails,
}
WORD_EXAMPLES: list[dict[str, Any]] = [
    {"word": word, "probability": chance, "confidence": sure}
    for word, chance, sure in (("a", 0.81, 0.97), ("cat", 0.64, 0.9), ("sleeping", 0.31, 0.55))
]
ANSWER_EXAMPLE: dict[str, Any] = {
    "request_id": "3f0c9a1e5b7d4c6f8a2b1c0d9e8f7a6b",
    "model": {"name": "compact", "digest": "9f2b" + "0" * 60, "version": "0.1.0"},
    "images": [
        {
            "name": "cat.jpg",
            "sha256": "5e1a" + "0" * 60,
            "captions": [
                {"caption": "a cat sleeping", "score": -0.71, "confidence": 0.73, "words": WORD_EXAMPLES},
            ],
            "cached": False,
            "timings": {"decode": 3.1, "wait": 0.2, "encode": 5.2, "search": 4.0},
        }
    ],
    "timings": {"body": 0.4, "total": 13.9},
}
STREAM_EXAMPLE = (
    'event: word\ndata: {"image": 0, "sample": 0, "word": "a"}\n\n'
    'event: word\ndata: {"image": 0, "sample": 0, "word": "cat"}\n\n'
    'event: image\ndata: {"image": 0, "name": "cat.jpg", "sha256": "...", "captions": [...]}\n\n'
    'event: done\ndata: {"request_id": "...", "model": {...}, "timings": {...}}\n\n'
)
