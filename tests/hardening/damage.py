"""Ways to damage what was saved: by accident, and with intent."""

import hashlib
import json
import os
import pickle
import random
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save

from conceptlab.errors import ConceptlabError

MARK = "code-was-run"


class Bomb:
    """Writes a file where it is unpickled."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (os.path.join(self.folder, MARK),)


def bomb(folder):
    """Give a pickle that leaves a mark in `folder`."""
    return pickle.dumps(Bomb(folder))


# ------------------------------------------------------------------- single files
def of_bytes(content, outside, seed=0):
    """Give damaged contents of a file by name."""
    draws = random.Random(seed)
    n = len(content)
    found = {
        "empty": b"",
        "one byte": content[:1],
        "half": content[: n // 2],
        "a byte short": content[:-1],
        "a byte long": content + b"\0",
        "a pickle": bomb(outside),
        "noise": draws.randbytes(max(n, 64)),
        "a huge header": (2**62).to_bytes(8, "little") + content[8:],
        "deep JSON": b"[" * 200_000,
        "not a number": b'{"a": NaN}',
        "a list": b"[]",
    }
    for number in range(3):
        at, bit = draws.randrange(n), draws.randrange(8)
        flipped = bytearray(content)
        flipped[at] ^= 1 << bit
        found[f"bit {bit} of byte {at} flipped ({number})"] = bytes(flipped)
    return found


def in_place_of(path, outside):
    """Give functions that put something else in the place of a file."""

    def removed():
        path.unlink()

    def folder():
        path.unlink()
        path.mkdir()

    def pipe():
        path.unlink()
        os.mkfifo(path)

    def link_to_nowhere():
        path.unlink()
        path.symlink_to(outside / "nowhere")

    def link_to_itself():
        path.unlink()
        path.symlink_to(path)

    def endless():
        path.unlink()
        path.symlink_to("/dev/zero")

    def oversized():
        with open(path, "r+b") as stream:
            stream.truncate(2**40)  # zeros that take no room on the disk

    return {
        f.__name__: f
        for f in (removed, folder, pipe, link_to_nowhere, link_to_itself, endless, oversized)
    }


# ------------------------------------------------------------------------ bundles
def seal(folder):
    """Make the manifest true again, as somebody would who means harm."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    for name in manifest["sha256"]:
        content = (folder / name).read_bytes()
        manifest["sha256"][name] = hashlib.sha256(content).hexdigest()
        manifest.setdefault("size", {})[name] = len(content)
    path.write_text(json.dumps(manifest))


def of_manifest(folder, outside):
    """Give functions that change the manifest, each by one entry."""
    path = folder / "manifest.json"

    def change(**entries):
        path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))

    def listing(name, target):
        manifest = json.loads(path.read_text())
        content = target.read_bytes() if target.is_file() else b""
        manifest["sha256"][name] = hashlib.sha256(content).hexdigest()
        manifest.setdefault("size", {})[name] = len(content)
        path.write_text(json.dumps(manifest))

    secret = outside / "secret"
    secret.write_bytes(b"secret")
    up = os.path.relpath(secret, folder)
    return {
        "another kind": lambda: change(kind="Nothing"),
        "a kind that is no text": lambda: change(kind=["Nothing"]),
        "a newer format": lambda: change(format_version=99),
        "a format that is no number": lambda: change(format_version="1"),
        "another format": lambda: change(format="zip"),
        "no files": lambda: change(sha256={}),
        "files that are no table": lambda: change(sha256=[1]),
        "hashes that are no text": lambda: change(
            sha256={"data.json": 1, "tensors.safetensors": 2}
        ),
        "sizes that are no table": lambda: change(size="x"),
        "negative sizes": lambda: change(size={"data.json": -1}),
        "a path upwards": lambda: listing(up, secret),
        "an absolute path": lambda: listing(str(secret), secret),
        "a folder": lambda: listing(".", folder),
        "parts outside": lambda: change(parts={os.path.dirname(up): "0"}),
        "parts that are no table": lambda: change(parts=3),
    }


def of_data(folder, seed=0, most=16):
    """Give functions that change values of data.json, sealed again; `most` of them."""
    path = folder / "data.json"
    places = list(leaves(json.loads(path.read_text())))
    draws = random.Random(seed)
    others = [None, -1, 10**30, 1e308, "\0", "", [], {}, [[]], True]

    def put(place, value):
        data = json.loads(path.read_text())
        at = data
        for key in place[:-1]:
            at = at[key]
        if value is put:
            del at[place[-1]]
        else:
            at[place[-1]] = value
        path.write_text(json.dumps(data))
        seal(folder)

    chosen = draws.sample(places, min(most, len(places)))
    found = {}
    for place in chosen:
        value = draws.choice([put, *others])
        name = "removed" if value is put else f"made {value!r:.20}"
        found[f"data {'/'.join(map(str, place))} {name}"] = lambda p=place, v=value: put(p, v)
    return found


def leaves(value, place=()):
    """Walk to every value of JSON, tables and lists included."""
    if place:
        yield place
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*place, key))
    elif isinstance(value, list):
        for key, inner in enumerate(value[:3]):
            yield from leaves(inner, (*place, key))


def of_tensors(folder, seed=0, most=3):
    """Give functions that change arrays, sealed again."""
    path = folder / "tensors.safetensors"
    names = sorted(load_file(path))
    ways = {
        "removed": lambda a: None,
        "flat": lambda a: a.reshape(-1),
        "short": lambda a: a[..., :-1] if a.ndim else a,
        "empty": lambda a: a[:0] if a.ndim else a,
        "bytes": lambda a: np.zeros(a.shape, np.uint8),
        "not finite": lambda a: np.full(a.shape, np.nan),
        "huge": lambda a: np.full(a.shape, np.iinfo(np.int64).max),
    }

    def put(name, way):
        arrays = load_file(path)
        new = ways[way](arrays.pop(name))
        if new is not None:
            arrays[name] = np.ascontiguousarray(new)
        path.write_bytes(save(arrays))
        seal(folder)

    chosen = random.Random(seed).sample(names, min(most, len(names)))
    return {f"{n} {w}": lambda n=n, w=w: put(n, w) for n in chosen for w in ways}


# ------------------------------------------------------------------------ judging
def listing(folder):
    """Give what lies in a folder: names, kinds and contents of files."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        plain = path.is_file() and not path.is_symlink()
        small = plain and path.stat().st_size < 2**30
        found[name] = hashlib.sha256(path.read_bytes()).hexdigest() if small else "other"
    return found


def verdict(read, folder, accept):
    """Say what is wrong with how `read` took a damaged folder, or None.

    Right is an error of ours with a code, or an answer that `accept` takes; nothing may be
    written.
    """
    before = listing(folder)
    try:
        answer = read(folder)
    except ConceptlabError as error:
        wrong = None if error.code and len(str(error)) < 2000 else f"no code, or endless: {error}"
    except BaseException as error:
        wrong = f"{type(error).__name__}: {error}"[:200]
    else:
        wrong = None if accept(answer) else "it was taken for sound"
    if listing(folder) != before:
        wrong = f"files were changed; {wrong}"
    return wrong


def copied(source, target):
    """Copy a sound folder or file to damage it there."""
    source, target = Path(source), Path(target)
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    elif target.exists() or target.is_symlink():
        target.unlink()
    return Path(shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target))
