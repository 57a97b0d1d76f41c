"""Synthesis: what is asked, what is kept, going on after a stop, and every way to fail."""

import json

import numpy as np
import pytest
from word_encoder import WordEncoder

from conceptlab.errors import CheckpointError, GeneratorError, InputError
from conceptlab.vocabulary import (
    ConceptFilter,
    ShortfallWarning,
    default_request,
    hard_negatives,
    synthesize,
)

CLASSES = ["tree_frog", "bull_frog", "grand_piano"]
ADJECTIVES = ["red", "tall", "flat", "round", "shiny", "rough", "tiny", "long"]
NOUNS = ["toes", "eyes", "lid", "legs", "keys", "stripes", "belly", "feet"]


class Writer:
    """A generator that writes random pairs of words, a bullet a line, by its seed."""

    def __init__(self, per_answer=4):
        self.prompts, self.seeds, self.per_answer = [], [], per_answer

    def __call__(self, prompts, *, seed):
        self.prompts += prompts
        self.seeds.append(seed)
        rng = np.random.default_rng(seed)
        pick = lambda words: words[int(rng.integers(len(words)))]  # noqa: E731
        return [
            "\n".join(f"- {pick(ADJECTIVES)} {pick(NOUNS)}" for _ in range(self.per_answer))
            for _ in prompts
        ]


def test_every_class_gets_its_number_of_different_concepts():
    writer = Writer()
    made = synthesize(CLASSES, writer, WordEncoder(), n_concepts=10, max_rounds=40, random_state=3)
    assert made.classes == tuple(CLASSES)
    assert made.counts.tolist() == [10, 10, 10]
    for label in CLASSES:
        assert len({text.casefold() for text in made[label]}) == 10
    assert made.meta["shortfall"] == {}
    assert made.meta["seed"] == 3
    assert made.meta["rejected"]["duplicate"] > 0  # across rounds too
    assert len(set(writer.seeds)) == len(writer.seeds) == made.meta["rounds"]
    again = synthesize(
        CLASSES, Writer(), WordEncoder(), n_concepts=10, max_rounds=40, random_state=3
    )
    assert again == made


def test_questions_name_the_neighbours_what_is_known_and_how_many_are_missing():
    writer = Writer(per_answer=3)
    synthesize(
        CLASSES,
        writer,
        WordEncoder(),
        n_concepts=5,
        n_neighbours=1,
        max_rounds=30,
        description="drawings of animals",
        random_state=0,
    )
    first = writer.prompts[0]
    assert first.startswith("Name 5 visible features of: tree frog\n")
    assert "drawings of animals" in first
    assert "apart from: bull frog\n" in first
    assert "grand piano" not in first
    assert "Do not repeat" not in first
    later = next(p for p in writer.prompts[3:] if ": tree frog\n" in p)
    assert "Do not repeat these: " in later
    assert not later.startswith("Name 5 ")


def test_neighbours_are_the_nearest_by_the_encoders_own_text_tower():
    near = hard_negatives(
        ["cat", "dog", "lorry", "bus"],
        WordEncoder(
            {
                "cat": ["animal", "meow"],
                "dog": ["animal", "bark"],
                "lorry": ["vehicle", "load"],
                "bus": ["vehicle", "people"],
            }
        ),
        1,
    )
    assert near == {"cat": ["dog"], "dog": ["cat"], "lorry": ["bus"], "bus": ["lorry"]}
    assert hard_negatives(["alone"], WordEncoder()) == {"alone": []}
    assert len(hard_negatives(CLASSES, WordEncoder(), 10)["tree_frog"]) == 2


def test_one_class_is_asked_for_without_neighbours():
    writer = Writer()
    made = synthesize(["newt"], writer, WordEncoder(), n_concepts=3, random_state=0)
    assert made.counts.tolist() == [3]
    assert "apart from" not in writer.prompts[0]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("one two three four five six seven eight nine", "too long"),
        ("x" * 101, "too long"),
        ("skin of a tree-frog", "class name"),
        ("Tree Frogs around it", "class name"),
        ("like a GRAND PIANO", "class name"),
        ("a strong smell", "not visual"),
        ("42", "no words"),
        ("...", "no words"),
    ],
)
def test_reasons_to_reject(text, reason):
    screen = ConceptFilter(CLASSES, max_words=8)
    assert screen.reason(text) == reason
    screen.add({"tree_frog": [text, "sticky toes"]})
    assert screen.kept["tree_frog"] == ["sticky toes"]
    assert screen.rejected == {reason: 1}


@pytest.mark.parametrize("text", ["a grand lid", "frogspawn", "pianos of glass", "trees"])
def test_parts_of_names_are_no_names(text):
    assert ConceptFilter(CLASSES).reason(text) is None


@pytest.mark.parametrize("text", ["two boxes", "a box lid", "boxs"])
def test_plurals_do_not_hide_a_name(text):
    assert ConceptFilter(["box", "newt"]).reason(text) == "class name"


def test_duplicates_by_letters_and_by_meaning_over_all_calls():
    encoder = WordEncoder({"crimson": ["red"], "scarlet": ["red"]})
    screen = ConceptFilter(["a1", "b1"], encoder)
    assert screen.add({"a1": ["red toes", "RED  toes."], "b1": ["crimson toes"]}) == {
        "a1": 1,
        "b1": 1,
    }
    assert screen.add({"a1": ["crimson toes", "blue toes"]}) == {"a1": 1}
    assert screen.kept == {"a1": ["red toes", "blue toes"], "b1": ["crimson toes"]}
    assert screen.rejected == {"duplicate": 1, "near-duplicate": 1}
    loose = ConceptFilter(["a1"], encoder, max_cosine=None)
    assert loose.add({"a1": ["red toes", "crimson toes"]}) == {"a1": 2}


def test_texts_over_the_context_are_left_out_alone():
    screen = ConceptFilter(["a1"], WordEncoder(context=3))
    screen.add({"a1": ["red toes", "four words are long", "blue toes", "five words are far too"]})
    assert screen.kept["a1"] == ["red toes", "blue toes"]
    assert screen.rejected == {"over the context length": 2}


# -- going on ----------------------------------------------------------------------------
OPTIONS = {"n_concepts": 9, "max_rounds": 30, "random_state": 1}


@pytest.mark.parametrize("stop", [0, 1, 2])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_run_goes_on_to_the_same_end(tmp_path, stop, error):
    whole = synthesize(CLASSES, Writer(), WordEncoder(), **OPTIONS)
    path, writer = tmp_path / "state.json", Writer()

    def breaks(prompts, *, seed):
        if len(writer.seeds) == stop:
            raise error("broken")
        return writer(prompts, seed=seed)

    with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else GeneratorError):
        synthesize(CLASSES, breaks, WordEncoder(), checkpoint=path, retry_wait=0, **OPTIONS)
    assert path.exists() == (stop > 0)
    assert [p.name for p in tmp_path.iterdir()] == ["state.json"] * (stop > 0)
    rest = Writer()
    made = synthesize(CLASSES, rest, WordEncoder(), checkpoint=path, **OPTIONS)
    assert made == whole
    assert made.meta == whole.meta
    assert len(rest.seeds) == whole.meta["rounds"] - stop


def test_a_finished_run_is_read_without_asking(tmp_path):
    path = tmp_path / "state.json"
    made = synthesize(CLASSES, Writer(), WordEncoder(), checkpoint=path, **OPTIONS)

    def never(prompts):
        raise AssertionError("asked again")

    options = {**OPTIONS, "random_state": None}  # the seed is that of the file
    again = synthesize(CLASSES, never, WordEncoder(), checkpoint=path, **options)
    assert again == made
    assert again.meta["seed"] == 1


def test_existing_concepts_are_kept_and_filled_up():
    start = {"tree_frog": ["a thing of mine"]}
    made = synthesize(CLASSES, Writer(), WordEncoder(), existing=start, **OPTIONS)
    assert made["tree_frog"][0] == "a thing of mine"
    assert made.counts.tolist() == [9, 9, 9]
    with pytest.raises(InputError, match=r"\['toad'\], which are not among the classes"):
        synthesize(CLASSES, Writer(), WordEncoder(), existing={"toad": ["x"]}, **OPTIONS)


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    path = tmp_path / "state.json"
    synthesize(CLASSES, Writer(), WordEncoder(), checkpoint=path, **OPTIONS)
    before = path.read_bytes()
    for change, word in (
        ({"n_neighbours": 1}, "namely of n_neighbours"),
        ({"random_state": 2}, "namely of random_state"),
    ):
        with pytest.raises(CheckpointError, match=word):
            synthesize(CLASSES, Writer(), WordEncoder(), checkpoint=path, **{**OPTIONS, **change})
    with pytest.raises(CheckpointError, match=r"encoder\. .*needs fingerprint="):
        synthesize(CLASSES, Writer(), WordEncoder(fingerprint="other"), checkpoint=path, **OPTIONS)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not readable as a checkpoint"),
        ("[]", "no checkpoint of synthesize"),
        ('{"newt": ["a tail"]}', "no checkpoint of synthesize"),
        ('{"kind": "conceptlab synthesis", "version": 99}', "version 99; this conceptlab reads"),
        ('{"kind": "conceptlab synthesis", "version": 1, "settings": {}}', "changed or truncated"),
    ],
)
def test_a_file_that_is_no_sound_checkpoint_is_left_alone(tmp_path, content, words):
    path = tmp_path / "state.json"
    path.write_text(content)
    with pytest.raises(CheckpointError, match=words):
        synthesize(CLASSES, Writer(), WordEncoder(), checkpoint=path, **OPTIONS)
    assert path.read_text() == content


def test_an_edited_checkpoint_is_noticed(tmp_path):
    path = tmp_path / "state.json"
    synthesize(CLASSES, Writer(), WordEncoder(), checkpoint=path, **OPTIONS)
    content = json.loads(path.read_text())
    content["state"]["texts"]["tree_frog"][0] = "something else"
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="changed or truncated"):
        synthesize(CLASSES, Writer(), WordEncoder(), checkpoint=path, **OPTIONS)


# -- failing -----------------------------------------------------------------------------
def test_shortfall_is_bounded_recorded_and_told():
    calls = []

    def poor(prompts):
        calls.append(len(prompts))
        return ["sticky toes\ngreen skin" if "tree frog\n" in p[:60] else "" for p in prompts]

    with pytest.warns(ShortfallWarning, match=r"3 of 3 classes have fewer than 5 .*'bull_frog' 0"):
        made = synthesize(CLASSES, poor, WordEncoder(), n_concepts=5, patience=2, max_rounds=50)
    assert made.meta["shortfall"] == {"tree_frog": 3, "bull_frog": 5, "grand_piano": 5}
    assert made["tree_frog"] == ["sticky toes", "green skin"]
    assert calls == [3, 3, 1]  # two fruitless rounds each, the frog one later
    with pytest.raises(InputError, match="2 of 3 classes have no concepts: 'bull_frog', 'grand_"):
        made.embed(WordEncoder())


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (lambda prompts: "one text", "list of 3 texts, one for each prompt, got str"),
        (lambda prompts: None, "got NoneType"),
        (lambda prompts: ["x"], "returned 1 texts for 3 prompts"),
        (lambda prompts: ["x", None, "y"], "returned a NoneType for prompt 1"),
        (lambda prompts: [["x"], ["y"], ["z"]], "returned a list for prompt 0"),
        (lambda prompts: (p for p in prompts), "got generator"),
        (lambda prompts: ["@@ 77 !!"] * 3, r"no class has a concept.*began: '@@ 77 !!'"),
        (lambda prompts: [""] * 3, "no class has a concept; rejected: answer without concepts 9"),
    ],
)
def test_rubbish_gets_a_clear_answer_and_leaves_no_file_of_it(tmp_path, answers, words):
    with pytest.raises(GeneratorError, match=words) as caught:
        synthesize(CLASSES, answers, WordEncoder(), retry_wait=0)
    assert caught.value.code == "CL-GENERATOR-FAILED"


def test_a_run_that_brought_nothing_starts_again_with_a_mended_generator(tmp_path):
    path = tmp_path / "state.json"
    with pytest.raises(GeneratorError, match="no class has a concept"):
        synthesize(CLASSES, lambda p: ["@@"] * 3, WordEncoder(), checkpoint=path, **OPTIONS)
    made = synthesize(CLASSES, Writer(), WordEncoder(), checkpoint=path, **OPTIONS)
    assert made == synthesize(CLASSES, Writer(), WordEncoder(), **OPTIONS)


def test_a_generator_that_raises_is_tried_three_times():
    calls = []

    def broken(prompts):
        calls.append(1)
        raise OSError("no line to the server")

    with pytest.raises(
        GeneratorError, match=r"round 1, 3 times running: OSError: no line"
    ) as caught:
        synthesize(CLASSES, broken, WordEncoder(), retry_wait=0)
    assert isinstance(caught.value.__cause__, OSError)
    assert len(calls) == 3


def test_a_generator_that_stumbles_once_is_forgiven():
    writer, calls = Writer(), []

    def stumbles(prompts, *, seed):
        calls.append(1)
        if len(calls) == 2:
            raise TimeoutError
        return writer(prompts, seed=seed)

    made = synthesize(CLASSES, stumbles, WordEncoder(), retry_wait=0, **OPTIONS)
    assert made == synthesize(CLASSES, Writer(), WordEncoder(), **OPTIONS)


@pytest.mark.parametrize(
    ("classes", "options", "words"),
    [
        ([], {}, "There are no classes"),
        ("newt", {}, "must be a list of names"),
        (["a1", "a1"], {}, r"\['a1'\] come more than once"),
        (["a1", " "], {}, "texts that are not blank"),
        (["a1", 3], {}, "texts that are not blank, got 3"),
        (["a1"], {"n_concepts": 0}, "n_concepts must be a whole number of at least 1, got 0"),
        (["a1"], {"max_rounds": 2.5}, "max_rounds must be a whole number"),
        (["a1"], {"max_cosine": 2}, "max_cosine must be in"),
        (["a1"], {"request": lambda r: None}, "request must return a text, got NoneType"),
    ],
)
def test_bad_arguments(classes, options, words):
    with pytest.raises(InputError, match=words):
        synthesize(classes, Writer(), WordEncoder(), **options)


def test_unknown_generators():
    with pytest.raises(InputError, match=r"Unknown generator 'gpt'\..*transformers:NAME"):
        synthesize(["a1"], "gpt", WordEncoder())
    with pytest.raises(InputError, match="generate must be a function"):
        synthesize(["a1"], 7, WordEncoder())
    with pytest.raises(InputError, match="options of a transformers generator"):
        synthesize(["a1"], Writer(), WordEncoder(), top_p=0.5)


def test_an_encoder_without_texts_says_so():
    from conceptlab.encoders import CallableEncoder

    with pytest.raises(InputError, match="knows no texts"):
        synthesize(["a1", "b1"], Writer(), CallableEncoder(lambda x: x.mean(dim=(2, 3))))


def test_own_wording_of_questions():
    writer = Writer()
    synthesize(
        ["tree_frog"],
        writer,
        WordEncoder(),
        request=lambda r: f"{r.n} for {r.label}!",
        n_concepts=2,
        random_state=0,
    )
    assert writer.prompts[0] == "2 for tree_frog!"
    assert callable(default_request)


def test_global_state(global_state_untouched):
    synthesize(CLASSES, Writer(), WordEncoder(), **{**OPTIONS, "random_state": None})
