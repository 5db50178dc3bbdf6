"""The page's colours, each for light and for dark, and the style sheet that applies them.

The hues differ for every kind of colour vision, and nothing is conveyed by colour alone.
"""

from __future__ import annotations

PALETTE: dict[str, tuple[str, str]] = {
    "paper": ("#fdfdfb", "#151614"),
    "panel": ("#f4f4ef", "#1f201d"),
    "line": ("#dadad2", "#3a3b36"),
    "muted": ("#62625b", "#a5a49b"),
    "ink": ("#1b1b19", "#eae9e3"),
    "before": ("#c3c3b9", "#55564f"),
    "after": ("#0a67a3", "#69b3e6"),
    "alarm": ("#b23c17", "#f0916b"),
    "second": ("#b8501a", "#ef9a5c"),
    "third": ("#157a57", "#5cc49a"),
    "fourth": ("#85489b", "#c898dc"),
    "fifth": ("#7a6a00", "#d6c04a"),
}
"""`before` and `after` are a model's two sizes; `after` to `fifth` tell up to five lines apart."""

SERIES = ("after", "second", "third", "fourth", "fifth")


def light(name: str) -> str:
    """A colour in the light scheme, in which pictures are drawn."""
    return PALETTE[name][0]


def style_sheet() -> str:
    """CSS that names every colour for both schemes, and puts the names into pictures.

    Matplotlib writes the light colours into the `style` of each element; a rule that is
    `!important` overrides that, so that one picture serves both schemes. No rule asks for an `svg`
    around the element: within the shapes that `<use>` repeats there is none.
    """
    light_scheme, dark_scheme = (
        " ".join(f"--{name}: {colours[scheme]};" for name, colours in PALETTE.items())
        for scheme in (0, 1)
    )
    rules = (
        f'[style*="{part}: {light(name)}"] {{ {part}: var(--{name}) !important; }}'
        for name in PALETTE
        for part in ("fill", "stroke")
    )
    dark = f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark_scheme} }} }}"
    return "\n".join([f":root {{ {light_scheme} }}", dark, *rules])
