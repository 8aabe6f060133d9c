"""The commands themselves: what they print, write and refuse."""

from __future__ import annotations

import json
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from showtell.cli.arguments import Parser
from showtell.cli.data_options import add_data_options, add_split_options, read_data, read_split_data
from showtell.cli.decoding_options import add_decoding_options, read_decoding_settings
from showtell.cli.main import main
from showtell.cli.recipes import as_toml
from showtell.cli.train import add_parser as add_train_parser
from showtell.cli.train import collect_overrides
from showtell.data.records import Dataset
from showtell.data.source import READERS
from showtell.data.splits import save_splits
from showtell.decoding import DecodingSettings
from showtell.errors import ConfigError, SplitError, UsageError
from showtell.recipes import Recipe, list_recipes, list_sequels, load_recipe

Capture = pytest.CaptureFixture[str]


def write_table(path: Path, photographs: list[Path], splits: list[str] | None = None) -> Path:
    """Writes a CSV with two captions for each photograph, and copies the photographs beside it."""
    rows = ["image,caption" + (",split" if splits else "")]
    for index, photograph in enumerate(photographs):
        if photograph.exists() and photograph.parent != path.parent:
            shutil.copy(photograph, path.parent)
        name, split = photograph.name, f",{splits[index]}" if splits else ""
        rows += [f"{name},A {photograph.stem} here.{split}", f"{name},Some {photograph.stem}.{split}"]
    path.write_text("\n".join(rows) + "\n")
    return path


# recipes


def test_recipes_are_listed_with_what_they_follow(capsys: Capture) -> None:
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["recipe", "encoder", "decoder", "follows"]
    sources = {name: recipe.source for name, recipe in list_recipes().items()} | list_sequels()
    assert [line.split()[0] for line in lines[1:]] == list(sources)
    for line, source in zip(lines[1:], sources.values(), strict=True):
        assert source
        assert line.endswith(source)


def test_recipes_as_json_can_be_read_back(capsys: Capture) -> None:
    assert main(["recipes", "--json"]) == 0
    tables = json.loads(capsys.readouterr().out)
    assert {name: Recipe.from_dict(table, name) for name, table in tables.items()} == list_recipes()


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_is_shown_as_toml_that_trains_the_same(name: str, tmp_path: Path, capsys: Capture) -> None:
    assert main(["recipes", name]) == 0
    (tmp_path / "mine.toml").write_text(capsys.readouterr().out)
    assert load_recipe(tmp_path / "mine.toml") == load_recipe(name)
    assert main(["recipes", str(tmp_path / "mine.toml"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == load_recipe(name).to_dict()


@pytest.mark.parametrize("name", list_sequels())
def test_a_recipe_that_goes_on_from_a_captioner_is_shown_too(
    name: str, tmp_path: Path, capsys: Capture
) -> None:
    start = load_recipe("attend-gru-additive")
    assert main(["recipes", name]) == 0
    (tmp_path / "mine.toml").write_text(capsys.readouterr().out)
    assert load_recipe(tmp_path / "mine.toml", start=start) == load_recipe(name, start=start)
    (tmp_path / "longer.toml").write_text(f'base = "{name}"\n[training]\nepochs = 50\n')
    assert main(["recipes", str(tmp_path / "longer.toml"), "--json"]) == 0
    tables = json.loads(capsys.readouterr().out)
    assert tables["base"] == "from"
    assert tables["training"]["epochs"] == 50
    assert load_recipe(tmp_path / "longer.toml", start=start).training.epochs == 50


def test_toml_keeps_every_kind_of_value() -> None:
    tables = {
        "name": 'a "b" \\ 犬\n',
        "rate": 1e-05,
        "on": True,
        "part": {"sizes": [1, 2], "none": None, "x": 0.5},
    }
    assert tomllib.loads(as_toml(tables)) == {**tables, "part": {"sizes": [1, 2], "x": 0.5}}


def test_a_mistyped_recipe_gets_a_suggestion(capsys: Capture) -> None:
    assert main(["recipes", "attend-gru-dt"]) == 2
    assert "Did you mean 'attend-gru-dot'?" in capsys.readouterr().err


# score


@pytest.fixture
def scored(tmp_path: Path) -> tuple[str, str]:
    captions = {
        1: ["A dog runs on grass.", "The dog is running."],
        2: ["Two men talk.", "A pair of men speaking."],
    }
    annotations = [{"image_id": key, "caption": text} for key, texts in captions.items() for text in texts]
    for number, annotation in enumerate(annotations):
        annotation["id"] = number
    content = {"images": [{"id": key} for key in captions], "annotations": annotations}
    (tmp_path / "references.json").write_text(json.dumps(content))
    hypotheses = [{"image_id": 1, "caption": "a dog runs on grass"}, {"image_id": 2, "caption": "men eat"}]
    (tmp_path / "hypotheses.json").write_text(json.dumps(hypotheses))
    return str(tmp_path / "references.json"), str(tmp_path / "hypotheses.json")


def test_score_prints_one_json_object_and_writes_scores_per_image(
    scored: tuple[str, str], tmp_path: Path, capsys: Capture
) -> None:
    assert main(["score", *scored, "--output", str(tmp_path / "scores.json")]) == 0
    output = capsys.readouterr()
    scores = json.loads(output.out.splitlines()[-1])
    assert list(scores) == ["Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr"]
    assert output.err == ""
    written = json.loads((tmp_path / "scores.json").read_text())
    assert written["scores"] == scores
    assert written["images"]["1"]["Bleu_1"] == pytest.approx(1.0)
    assert written["images"]["2"]["Bleu_1"] < 1


def test_score_computes_only_the_metrics_that_were_named(scored: tuple[str, str], capsys: Capture) -> None:
    assert main(["score", *scored, "--metrics", "rouge_l,CIDER"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == ["ROUGE_L", "CIDEr"]


def test_a_saved_idf_gives_a_single_image_its_cider(
    scored: tuple[str, str], tmp_path: Path, capsys: Capture
) -> None:
    idf = str(tmp_path / "idf.json")
    assert main(["score", *scored, "--save-idf", idf]) == 0
    together = json.loads(capsys.readouterr().out)["CIDEr"]
    references, hypotheses = (json.loads(Path(name).read_text()) for name in scored)
    references["images"] = references["images"][:1]
    references["annotations"] = [one for one in references["annotations"] if one["image_id"] == 1]
    (tmp_path / "one.json").write_text(json.dumps(references))
    (tmp_path / "one_hypothesis.json").write_text(json.dumps(hypotheses[:1]))
    words = ["score", str(tmp_path / "one.json"), str(tmp_path / "one_hypothesis.json")]
    assert main(words) == 0
    output = capsys.readouterr()
    assert json.loads(output.out)["CIDEr"] == 0
    assert "CIDEr is 0 because only one image was scored" in output.err
    assert main([*words, "--idf", idf]) == 0
    assert json.loads(capsys.readouterr().out)["CIDEr"] > together / 2 > 0


def test_score_names_the_metrics_that_there_are() -> None:
    from showtell.cli.score import METRICS as NAMED
    from showtell.cli.score import RESAMPLES
    from showtell.metrics import METRICS, bootstrap

    assert NAMED == METRICS
    assert RESAMPLES == bootstrap.RESAMPLES


def test_score_shows_intervals_on_request(scored: tuple[str, str], tmp_path: Path, capsys: Capture) -> None:
    assert main(["score", *scored]) == 0
    plain = capsys.readouterr()
    assert main(["score", *scored, "--resamples", "50", "--output", str(tmp_path / "scores.json")]) == 0
    output = capsys.readouterr()
    assert output.out == plain.out
    lines = output.err.splitlines()
    assert [line.split()[1] for line in lines] == list(json.loads(plain.out))
    written = json.loads((tmp_path / "scores.json").read_text())["intervals"]
    low, high = written["ROUGE_L"]
    score = json.loads(plain.out)["ROUGE_L"]
    assert low < score < high
    assert f"showtell: ROUGE_L {100 * score:.1f} [{100 * low:.1f}, {100 * high:.1f}]" in lines


def test_score_compares_two_systems(scored: tuple[str, str], tmp_path: Path, capsys: Capture) -> None:
    worse = tmp_path / "worse.json"
    worse.write_text('[{"image_id": 2, "caption": "cats"}, {"image_id": 1, "caption": "a cat"}]')
    words = ["score", *scored, "--against", str(worse), "--resamples", "200"]
    assert main([*words, "--output", str(tmp_path / "scores.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert main(["score", *scored]) == 0
    assert lines[-1] == capsys.readouterr().out.strip()
    assert lines[0].split() == [
        "metric",
        "these",
        "others",
        "difference",
        "95%",
        "interval",
        "better",
        "in",
        "p",
    ]
    assert [line.split()[0] for line in lines[1:-1]] == list(json.loads(lines[-1]))
    assert main(["score", scored[0], str(worse)]) == 0
    theirs = json.loads(capsys.readouterr().out)
    written = json.loads((tmp_path / "scores.json").read_text())["against"]
    assert written["scores"] == theirs
    difference = written["differences"]["ROUGE_L"]
    assert difference["difference"] == pytest.approx(json.loads(lines[-1])["ROUGE_L"] - theirs["ROUGE_L"])
    assert difference["better"] == 1.0
    worse.write_text('[{"image_id": 1, "caption": "a cat"}]')
    assert main(words) == 2
    assert "1 image has references but no hypothesis: '2'" in capsys.readouterr().err


def test_score_refuses_a_missing_image_by_its_id(scored: tuple[str, str], capsys: Capture) -> None:
    Path(scored[1]).write_text('[{"image_id": 1, "caption": "a dog"}]')
    assert main(["score", *scored]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert "2" in output.err
    assert output.err.startswith("showtell: error: ")


# data check


def test_data_check_exits_with_1_exactly_where_something_is_wrong(
    photographs: list[Path], tmp_path: Path, capsys: Capture
) -> None:
    splits = ["train", "train", "train", "train", "dev", "dev"]
    good = write_table(tmp_path / "good.csv", photographs, splits)
    assert main(["data", "check", str(good)]) == 0
    table = capsys.readouterr().out
    assert "train" in table
    bad = write_table(tmp_path / "bad.csv", [*photographs, tmp_path / "gone.jpg"], [*splits, "train"])
    assert main(["data", "check", str(bad), "--json"]) == 1
    output = capsys.readouterr()
    assert "gone.jpg" in json.dumps(json.loads(output.out)["problems"])
    assert output.err == ""


def test_data_check_without_decoding_does_not_see_a_damaged_image(
    tmp_path: Path, photographs: list[Path]
) -> None:
    damaged = tmp_path / "damaged.jpg"
    damaged.write_bytes(photographs[0].read_bytes()[:2000])
    table = write_table(tmp_path / "captions.csv", [damaged, photographs[1]], ["train", "train"])
    assert main(["data", "check", str(table)]) == 1
    assert main(["data", "check", str(table), "--no-decode"]) == 0


def test_data_check_of_no_data_set_is_a_usage_error(tmp_path: Path, capsys: Capture) -> None:
    assert main(["data", "check", str(tmp_path)]) == 2
    assert "empty" in capsys.readouterr().err
    assert main(["data", "check", str(tmp_path / "nowhere")]) == 2
    assert "no such file or folder" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.shared
def test_data_check_finds_the_ghost_entry_of_flickr8k(shared: Path, capsys: Capture) -> None:
    code = main(["data", "check", str(shared / "data/flickr8k"), "--no-decode", "--json"])
    report = json.loads(capsys.readouterr().out)
    ghosts = [problem for problem in report["problems"] if "2258277193_586949ec62" in json.dumps(problem)]
    assert ghosts
    assert code == (1 if any(problem["severity"] == "error" for problem in report["problems"]) else 0)


# Options for data


def read(words: list[str], *, resolve: bool) -> Dataset:
    parser = Parser(prog="test")
    add_data_options(parser, positional=False)
    add_split_options(parser)
    return (read_split_data if resolve else read_data)(parser.parse_args(words))


def test_formats_are_the_ones_that_can_be_read(tmp_path: Path, photographs: list[Path]) -> None:
    table = str(write_table(tmp_path / "captions.csv", photographs))
    assert read(["--data", table, "--format", "csv"], resolve=False).format == "table"
    with pytest.raises(UsageError, match="must be one of") as caught:
        read(["--data", table, "--format", "cocoo"], resolve=False)
    assert "Did you mean 'coco'?" in str(caught.value)
    assert f"must be one of {', '.join(READERS)}." in str(caught.value)


def test_columns_of_a_table_can_be_named(tmp_path: Path, photographs: list[Path]) -> None:
    write_table(tmp_path / "captions.csv", photographs)
    (tmp_path / "odd.csv").write_text(f"datei,text,teil\n{photographs[0].name},Ein Bild.,val\n")
    columns = ["--image-column", "datei", "--caption-column", "text", "--split-column", "teil"]
    image = read(["--data", str(tmp_path / "odd.csv"), *columns], resolve=True).images[0]
    assert (image.captions, image.split) == (("Ein Bild.",), "dev")


def test_images_without_a_split_need_a_choice(tmp_path: Path, photographs: list[Path]) -> None:
    table = str(write_table(tmp_path / "captions.csv", photographs))
    assert read(["--data", table], resolve=False).counts() == {None: 6}
    with pytest.raises(SplitError, match="--unsplit split"):
        read(["--data", table], resolve=True)
    assert read(["--data", table, "--unsplit", "val"], resolve=True).counts() == {"dev": 6}
    divided = ["--data", table, "--unsplit", "split", "--dev-fraction", "0.34", "--test-fraction", "0"]
    assert read(divided, resolve=True).counts() == {"train": 4, "dev": 2}
    chosen = {read([*divided, "--split-seed", str(seed)], resolve=True).fingerprint() for seed in range(8)}
    assert len(chosen) > 1


def test_saved_splits_leave_out_other_images_only_on_request(tmp_path: Path, photographs: list[Path]) -> None:
    table = str(write_table(tmp_path / "captions.csv", photographs))
    chosen = read(["--data", table], resolve=False).images[:2]
    save_splits(
        Dataset("two", "table", tuple(replace(image, split="dev") for image in chosen)),
        tmp_path / "splits.json",
    )
    options = ["--data", table, "--splits", str(tmp_path / "splits.json")]
    with pytest.raises(SplitError, match="--unsplit drop"):
        read(options, resolve=True)
    assert read([*options, "--unsplit", "drop"], resolve=True).counts() == {"dev": 2}
    with pytest.raises(UsageError, match="--unsplit split contradicts it"):
        read([*options, "--unsplit", "split"], resolve=True)


def test_near_duplicates_stay_together_when_we_split(tmp_path: Path, photographs: list[Path]) -> None:
    copies = []
    for photograph in photographs[:3]:
        copy = tmp_path / f"{photograph.stem}-copy.jpg"
        with Image.open(photograph) as image:
            image.resize((image.width // 2, image.height // 2)).save(copy, quality=70)
        copies.append(copy)
    table = str(write_table(tmp_path / "captions.csv", [*photographs, *copies]))
    for seed in range(4):
        options = [
            "--unsplit",
            "split",
            "--dev-fraction",
            "0.4",
            "--test-fraction",
            "0",
            "--split-seed",
            str(seed),
        ]
        images = read(["--data", table, *options], resolve=True).images
        splits = {image.path.stem: image.split for image in images}
        for photograph in photographs[:3]:
            assert splits[photograph.stem] == splits[f"{photograph.stem}-copy"]


def test_several_data_sets_are_joined_and_split_one_by_one(tmp_path: Path, photographs: list[Path]) -> None:
    first = write_table(tmp_path / "first.csv", photographs[:3], ["train", "train", "dev"])
    second = write_table(tmp_path / "second.csv", photographs[3:])
    joined = read(["--data", str(first), "--data", str(second), "--unsplit", "train"], resolve=True)
    assert joined.counts() == {"train": 5, "dev": 1}


def test_what_a_reader_noticed_is_said_but_not_a_thousand_times(
    tmp_path: Path, photographs: list[Path], capsys: Capture
) -> None:
    table = write_table(tmp_path / "captions.csv", photographs, ["train"] * 6)
    table.write_text(table.read_text() + f"{photographs[0].name},,train\n" * 20)
    noticed = len(read(["--data", str(table)], resolve=True).problems)
    lines = capsys.readouterr().err.splitlines()
    assert noticed > 5
    assert len(lines) == 6
    assert lines[-1] == (
        f"showtell: and {noticed - 5} more problems of captions; `showtell data check` lists them"
    )


def test_train_misses_a_split_before_it_loads_a_framework(
    tmp_path: Path, photographs: list[Path], capsys: Capture
) -> None:
    table = write_table(tmp_path / "captions.csv", photographs, ["train"] * 6)
    words = ["train", "show-tell-lstm", "--data", str(table), "--output", str(tmp_path / "run")]
    assert main(words) == 2
    assert "has no images in split 'dev'. It has: train." in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


# Options for decoding


def decoding(*words: str, asked: int | None = None, **defaults: object) -> DecodingSettings:
    parser = Parser(prog="test")
    add_decoding_options(parser)
    settings = DecodingSettings(**defaults)  # type: ignore[arg-type]
    return read_decoding_settings(parser.parse_args(words), settings, count=asked)


def test_decoding_is_as_in_the_recipe_where_nothing_is_said() -> None:
    assert decoding(method="sample", top_k=10, count=5) == DecodingSettings(
        method="sample", top_k=10, count=5
    )


def test_decoding_options_replace_what_the_recipe_says() -> None:
    assert decoding("--beam", "5") == DecodingSettings(method="beam", beam=5)
    assert decoding("--beam", "5", asked=2) == DecodingSettings(method="beam", beam=5, count=2)
    assert decoding("--greedy", method="sample", count=5) == DecodingSettings(method="greedy", count=1)
    line = "--sample --temperature 0.7 --top-k 9 --top-p 0.8 --seed 4 --max-steps 12 --length-penalty 0"
    assert decoding(*line.split(), asked=3) == DecodingSettings(
        method="sample",
        temperature=0.7,
        top_k=9,
        top_p=0.8,
        seed=4,
        max_steps=12,
        length_penalty=0.0,
        count=3,
    )
    bound = decoding("--no-repeat-ngram", "3", "--no-double-words")
    assert bound == DecodingSettings(no_repeat_ngram=3, no_double_words=True)
    assert decoding("--double-words", no_double_words=True) == DecodingSettings()
    words = decoding("--include", "Dog|dogs", "--include", "red shirt", "--exclude", "man", exclude=("cat",))
    assert words == DecodingSettings(include=("Dog|dogs", "red shirt"), exclude=("man",))
    assert decoding("--beam", "4", include=("dog",)) == DecodingSettings(beam=4, include=("dog",))
    assert decoding("--seed", "3", method="sample") == DecodingSettings(method="sample", seed=3)


def test_decoding_options_that_contradict_are_refused() -> None:
    with pytest.raises(UsageError, match=r"--beam and --sample contradict each other. Give one"):
        decoding("--beam", "3", "--sample")
    with pytest.raises(UsageError, match=r"--top-p 0.9 has no meaning without --sample"):
        decoding("--beam", "3", "--top-p", "0.9")
    with pytest.raises(ConfigError, match="beam of 3 cannot give 5"):
        decoding("--beam", "3", asked=5)
    with pytest.raises(ConfigError, match=r"only with method 'beam' \(--beam K\)"):
        decoding("--include", "dog", method="greedy")


# train


def test_shortcuts_of_train_become_overrides() -> None:
    parser = Parser(prog="test")
    add_train_parser(parser.add_subparsers(parser_class=Parser))
    words = ["train", "show-tell-lstm", "--data", ".", "--output", "run", "--set", "training.epochs=3"]
    arguments = parser.parse_args([*words, "--weights", str(Path(__file__)), "--seed", "7"])
    recipe = load_recipe("show-tell-lstm", collect_overrides(arguments))
    assert (recipe.training.epochs, recipe.training.seed) == (3, 7)
    assert recipe.encoder.weights == str(Path(__file__))


def test_weights_of_several_backbones_are_given_one_by_one(tmp_path: Path) -> None:
    parser = Parser(prog="test")
    add_train_parser(parser.add_subparsers(parser_class=Parser))
    paths = [tmp_path / "first.pth", tmp_path / "second.pth"]
    words = [
        "train",
        "show-tell-lstm",
        "--data",
        ".",
        "--output",
        "run",
        "--set",
        "encoder.name=resnet18 + resnet50",
    ]
    for path in paths:
        path.touch()
        words += ["--weights", str(path)]
    recipe = load_recipe("show-tell-lstm", collect_overrides(parser.parse_args(words)))
    assert [(one.name, one.weights) for one in recipe.encoder.backbones()] == [
        ("resnet18", str(paths[0])),
        ("resnet50", str(paths[1])),
    ]
    with pytest.raises(ConfigError, match=r"one file for each backbone, .* Received: 1 "):
        load_recipe("show-tell-lstm", collect_overrides(parser.parse_args(words[:-2])))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epoch=3", "Did you mean 'epochs'?"),
        ("trainin.epochs=3", "Did you mean 'training'?"),
        ("training.epochs=many", "training.epochs must be of type int. Received: 'many'"),
        ("epochs", "must look like section.key=value. Received: 'epochs'"),
    ],
)
def test_train_refuses_a_wrong_setting_before_it_reads_data(
    override: str, message: str, capsys: Capture
) -> None:
    words = ["train", "show-tell-lstm", "--data", "/dev/null", "--output", "run", "--set", override]
    assert main(words) == 2
    assert message in capsys.readouterr().err
