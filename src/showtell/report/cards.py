"""Single images on the page: with what was said of them, what is probably wrong, and where the words came from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from showtell.errors import count
from showtell.outputs.names import readable
from showtell.report.contents import RANKED_BY, Comparison, Explained, Judged, Pictured, Report
from showtell.report.markup import Markup, element, join, percent, picture
from showtell.report.mistakes import KINDS, Mistake
from showtell.text import tokenize


class Cards:
    """Draws images of one report. Each has a number, by which it is linked to; the script knows models by theirs."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._images = {image.id: image for image in report.images}
        self._models = {model.label: number for number, model in enumerate(report.models)}
        self._numbers = {image.id: number for number, image in enumerate(report.images, start=1)}

    def list_all(self) -> list[Markup]:
        """Returns all images, with what every model said."""
        return [self._draw(image, number) for number, image in enumerate(self._report.images, start=1)]

    def explain(self, model: Judged, ids: Iterable[str]) -> Markup:
        """Returns images with what one model said, and where each of its words came from."""
        return element("div", [self._explain(model, identifier) for identifier in ids], class_="examples")

    def compare(self, one: Comparison, models: Sequence[Judged], ids: Iterable[str]) -> Markup:
        """Returns images with what two models said of each."""
        items = []
        for identifier in ids:
            image = self._images[identifier]
            said = [self._said(model, identifier) for model in models]
            gain = element("p", f"{100 * one.gains[identifier]:+.0f} {RANKED_BY}", class_="gain")
            items.append(
                element(
                    "article",
                    _show(image),
                    element(
                        "div", element("h4", self.link(identifier)), gain, element("ul", said, class_="said")
                    ),
                    _references(image),
                    class_="pair",
                )
            )
        return element("div", items, class_="pairs")

    def link(self, identifier: str) -> Markup:
        """Returns the name of an image as a link to it in the list of all."""
        return element("a", readable(identifier), href=f"#image-{self._numbers[identifier]}")

    def _draw(self, image: Pictured, number: int) -> Markup:
        models = self._report.models
        said = [self._said(model, image.id, named=len(models) > 1) for model in models]
        return element(
            "article",
            _show(image),
            element("h3", readable(image.id)),
            element("ul", said, class_="said"),
            _references(image),
            id=f"image-{number}",
            class_="card",
            tabindex=-1,
        )

    def _explain(self, model: Judged, identifier: str) -> Markup:
        image = self._images[identifier]
        return element(
            "article",
            _show(image),
            element(
                "div",
                element("h4", self.link(identifier)),
                element("ul", self._said(model, identifier, named=False), class_="said"),
                element("ul", [element("li", text) for text in image.references], class_="references"),
            ),
            _light(model.explained.get(identifier)),
            class_="example",
        )

    def _said(self, model: Judged, identifier: str, *, named: bool = True) -> Markup:
        """Returns what a model said of an image, its score and what is probably wrong; the script reads attributes."""
        caption = model.evaluation.captions[identifier][0]
        found = model.mistakes[identifier]
        score = model.evaluation.per_image[identifier][RANKED_BY]
        facts = [f"{RANKED_BY} {100 * score:.0f}"]
        if caption.confidence is not None:
            facts.append(f"confidence {percent(caption.confidence)}")
        return element(
            "li",
            element("p", model.label, class_="model") if named else None,
            element("p", _mark(caption.text, found), class_="caption"),
            element("p", " · ".join(facts), class_="facts"),
            element("ul", [_tell(one) for one in found], class_="found") if found else None,
            data_model=self._models[model.label],
            data_score=f"{score:.4f}",
            data_confidence=None if caption.confidence is None else f"{caption.confidence:.4f}",
            data_found=" ".join(dict.fromkeys(one.kind for one in found)) or None,
        )


def _mark(text: str, found: Sequence[Mistake]) -> Markup:
    """Returns a caption with the words that are probably wrong marked."""
    if not text:
        return element("em", "no caption")
    wrong = {word for one in found for word in one.words}
    words = [
        element("mark", word) if not wrong.isdisjoint(tokenize(word)) else join(word)
        for word in text.split(" ")
    ]
    return join([join(" " if place else "", word) for place, word in enumerate(words)])


def _tell(one: Mistake) -> Markup:
    return element("li", element("strong", KINDS[one.kind].title), f": {one.reason}")


def _references(image: Pictured) -> Markup:
    return element(
        "details",
        element("summary", count(len(image.references), "reference")),
        element("ul", [element("li", text) for text in image.references], class_="references"),
    )


def _show(image: Pictured) -> Markup:
    """Returns the picture; in its place for those who do not see it stands what the first of the people said."""
    if not image.thumbnail:
        return element("div", element("span", "not shown: too many pictures"), class_="picture none")
    return element("div", picture(image.thumbnail, image.size, image.references[0]), class_="picture")


def _light(explained: Explained | None) -> Markup | None:
    if explained is None:
        return None
    tiles = []
    for word in explained.words:
        tiles.append(
            element(
                "li",
                picture(word.picture, explained.size, ""),
                element("span", word.word),
                None if word.probability is None else element("small", percent(word.probability)),
                None if word.blind is None else element("small", f"unseen {percent(word.blind)}"),
            )
        )
    return element("ul", tiles, class_="lit")
