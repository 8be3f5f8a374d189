"""The app's resources: colours that can be read, and texts that stand in strings.xml and nowhere else."""

import re
from pathlib import Path

import pytest

MAIN = Path(__file__).resolve().parents[1] / "app" / "src" / "main"
TEXTS = ("text", "text_quiet", "accent", "agrees_text", "differs_text")
PAIRS = [(text, behind) for text in TEXTS for behind in ("background", "surface")]
PAIRS += [("on_accent", "accent")] + [("on_verdict", verdict) for verdict in ("agrees", "differs", "unknown")]


def colours(folder):
    text = (MAIN / "res" / folder / "colors.xml").read_text()
    return dict(re.findall(r'<color name="(\w+)">#([0-9A-F]{6})</color>', text))


def luminance(colour):
    """WCAG's relative luminance of a colour of sRGB."""
    levels = (int(colour[i : i + 2], 16) / 255 for i in (0, 2, 4))
    red, green, blue = (x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in levels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("night", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("text, behind", PAIRS)
def test_contrast(text, behind, night):
    """4.5:1 at least, which WCAG 2 asks for ordinary letters."""
    palette = {**colours("values"), **(colours("values-night") if night else {})}
    darker, lighter = sorted(luminance(palette[name]) for name in (text, behind))
    assert (lighter + 0.05) / (darker + 0.05) >= 4.5


def test_layouts_take_texts_from_the_strings():
    found = 0
    for path in (MAIN / "res" / "layout").glob("*.xml"):
        for value in re.findall(r'android:(?:text|hint|contentDescription)="([^"]*)"', path.read_text()):
            assert value.startswith("@string/"), path
            found += 1
    assert found > 20


def test_every_string_is_used():
    source = "".join(path.read_text() for path in MAIN.rglob("*") if path.suffix in (".java", ".xml"))
    for kind, name in re.findall(r'<(string|plurals|string-array) name="(\w+)"', source):
        kind = {"string-array": "array"}.get(kind, kind)
        assert re.search(rf"R\.{kind}\.{name}\b|@{kind}/{name}\b", source), name
