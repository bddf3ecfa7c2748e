"""The drawings of concepts.md, acting.md and developer/house.md: `python docs/_draw.py` writes docs/figures/*.svg.

Plain SVG and the standard library, so that the files are the same on every machine (a test compares them).
"""

from pathlib import Path
from xml.sax.saxutils import escape

FIGURES = Path(__file__).parent / "figures"
INK, GREY, BLUE, ORANGE, GREEN = "#1b1f24", "#6b7280", "#2563a8", "#c2570c", "#2f7d4f"
PALE = {INK: "#f3f4f6", GREY: "#f3f4f6", BLUE: "#e3eefb", ORANGE: "#fdeadb", GREEN: "#e2f3e8"}


class Drawing:
    """Shapes on a white sheet."""

    def __init__(self, width: int, height: int):
        self.width, self.height, self.parts = width, height, list[str]()

    def text(self, x: float, y: float, words: str, colour: str = INK, size: int = 14, anchor: str = "middle") -> None:
        """Lines of text around y; a line that starts with ! is bold."""
        lines = words.split("\n")
        for i, line in enumerate(lines):
            weight = ' font-weight="bold"' if line.startswith("!") else ""
            at = y + (i - (len(lines) - 1) / 2) * (size + 4) + size * 0.35
            self.parts.append(
                f'<text x="{x:g}" y="{at:g}" fill="{colour}" font-size="{size}" text-anchor="{anchor}"{weight}>'
                f"{escape(line.lstrip('!'))}</text>"
            )

    def box(self, x: float, y: float, width: float, height: float, words: str = "", colour: str = INK) -> None:
        """A filled box with text in its middle."""
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" fill="{PALE[colour]}" '
            f'stroke="{colour}" stroke-width="1.5"/>'
        )
        if words:
            self.text(x + width / 2, y + height / 2, words, colour)

    def frame(self, x: float, y: float, width: float, height: float, words: str, colour: str = GREY) -> None:
        """A dashed frame named at its upper left."""
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="10" fill="none" '
            f'stroke="{colour}" stroke-dasharray="5 4"/>'
        )
        self.text(x + 12, y + 15, words, colour, 13, "start")

    def cell(self, x: float, y: float, size: float, colour: str) -> None:
        """One entry of a matrix."""
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{size:g}" height="{size:g}" fill="{colour}" stroke="white"/>'
        )

    def circle(self, x: float, y: float, radius: float, words: str, colour: str = INK) -> None:
        """A unit."""
        self.parts.append(
            f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="{PALE[colour]}" stroke="{colour}" stroke-width="1.5"/>'
        )
        self.text(x, y, words, colour)

    def arrow(
        self, *points: tuple[float, float], colour: str = INK, dashed: bool = False, curved: bool = False
    ) -> None:
        """A line through the points, or a curve with the middle ones as its handles, with a head at its end."""
        path = " ".join(f"{x:g},{y:g}" for x, y in points[1:])
        kind = {3: "Q", 4: "C"}[len(points)] if curved else "L"
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self.parts.append(
            f'<path d="M{points[0][0]:g},{points[0][1]:g} {kind}{path}" fill="none" stroke="{colour}" '
            f'stroke-width="1.6"{dash} marker-end="url(#head-{colour[1:]})"/>'
        )

    def svg(self) -> str:
        """The file's text."""
        heads = "".join(
            f'<marker id="head-{c[1:]}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
            f'orient="auto"><path d="M0,0 L10,5 L0,10 z" fill="{c}"/></marker>'
            for c in PALE
        )
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}" '
            f'height="{self.height}" font-family="Helvetica, Arial, sans-serif">\n<defs>{heads}</defs>\n'
            f'<rect width="{self.width}" height="{self.height}" fill="white"/>\n' + "\n".join(self.parts) + "\n</svg>\n"
        )


def parts() -> Drawing:
    """One step of online learning, and who does what in it."""
    d = Drawing(860, 390)
    d.frame(8, 8, 844, 374, "Loop: the one loop over time (an Experiment chooses what is in it)")
    d.frame(180, 32, 660, 336, "Learner: Online")
    d.frame(200, 68, 400, 108, "Model", BLUE)
    d.box(26, 100, 110, 60, "!Task", GREEN)
    d.box(230, 100, 130, 60, "!Cell", BLUE)
    d.box(450, 100, 130, 60, "!Head", BLUE)
    d.box(690, 100, 130, 60, "!Objective", ORANGE)
    d.box(450, 215, 130, 60, "!Credit", ORANGE)
    d.box(230, 290, 130, 56, "optimiser\n(optax)", INK)
    d.arrow((136, 130), (228, 130))
    d.text(158, 120, "x")
    d.arrow((360, 130), (448, 130))
    d.text(405, 120, "features")
    d.arrow((580, 130), (688, 130))
    d.text(640, 120, "prediction")
    d.arrow((262, 100), (262, 64), (325, 64), (325, 98), colour=BLUE, curved=True)
    d.text(345, 83, "carry", BLUE, 13, "start")
    d.arrow((81, 100), (81, 58), (755, 58), (755, 98), colour=GREEN)
    d.text(690, 46, "y, the target", GREEN, 13)
    d.arrow((755, 160), (755, 245), (582, 245), colour=ORANGE)
    d.text(668, 235, "pull(cotangent)", ORANGE)
    d.text(668, 263, "no influence matrix here", GREY, 12)
    d.arrow((330, 160), (330, 232), (448, 232), colour=BLUE, dashed=True)
    d.text(389, 222, "sees each step", GREY, 12)
    d.text(515, 203, "no loss in here", GREY, 12)
    d.arrow((515, 275), (515, 318), (362, 318), colour=ORANGE)
    d.text(437, 335, "gradient", ORANGE)
    d.arrow((262, 290), (262, 162))
    d.text(270, 262, "new\nweights", INK, 14, "start")
    return d


def pull() -> Drawing:
    """Objectives on one side of `pull`, credit rules on the other."""
    d = Drawing(760, 270)
    d.text(110, 22, "!Objective: what is wrong now", ORANGE)
    d.box(20, 60, 190, 56, "Supervised\npulls d loss / d prediction", ORANGE)
    d.box(20, 160, 190, 56, "TDLambda\npulls 1, keeps a trace", ORANGE)
    d.box(310, 100, 140, 80, "!pull\ncotangent in,\ngradient out", INK)
    d.text(620, 22, "!Credit: which weight, used when", BLUE)
    rules = ("Columnwise", "RTRL", "SnAp(n)", "UORO", "TBPTT(k)", "RFLO")
    for i, name in enumerate(rules):
        y = 44 + 36 * i
        d.box(550, y, 150, 28, name, BLUE)
        d.arrow((450, 140), (548, y + 14), colour=BLUE)
    d.arrow((210, 88), (308, 128), colour=ORANGE)
    d.arrow((210, 188), (308, 152), colour=ORANGE)
    return d


def columns() -> Drawing:
    """Wiring and influence matrix of a dense layer and of columns."""
    d = Drawing(820, 440)
    for left, dense in ((0, True), (420, False)):
        d.text(left + 190, 22, "!Dense layer: units read one another" if dense else "!Columns: each reads itself only")
        units = [(left + 90 + 100 * i, 90) for i in range(3)]
        for i, (x, y) in enumerate(units):
            d.arrow((x - 10, y - 20), (x - 34, y - 52), (x + 34, y - 52), (x + 10, y - 20), colour=BLUE, curved=True)
            d.arrow((x, 165), (x, y + 24), colour=GREY)
            if dense and i < 2:
                to = units[i + 1][0]
                d.arrow((x + 22, y - 5), (to - 24, y - 5), colour=BLUE)
                d.arrow((to - 22, y + 7), (x + 24, y + 7), colour=BLUE)
        if dense:
            (a, y), _, (c, _) = units
            d.arrow((a + 12, y + 19), ((a + c) / 2, y + 62), (c - 14, y + 21), colour=BLUE, curved=True)
            d.arrow((c - 6, y + 23), ((a + c) / 2, y + 84), (a + 4, y + 24), colour=BLUE, curved=True)
        for i, (x, y) in enumerate(units):
            d.circle(x, y, 22, f"h{i + 1}", BLUE)
        d.text(left + 190, 178, "x, the observation", GREY, 13)
        d.text(left + 190, 218, "influence: d h / d parameters", INK, 13)
        for row in range(3):
            d.text(left + 62, 252 + 28 * row + 13, f"h{row + 1}", BLUE, 13, "end")
            for column in range(9):
                own = column // 3 == row
                full = BLUE if own else ("#9dc0e8" if dense else "#eceef1")
                d.cell(left + 70 + 28 * column, 252 + 28 * row, 28, full)
        for unit in range(3):
            d.text(left + 70 + 84 * unit + 42, 350, f"weights of {unit + 1}", GREY, 12)
        words = (
            "every weight moves every unit: n P numbers\nto keep, n² P multiply-adds a step"
            if dense
            else "grey is exactly 0, at every step: P numbers\nto keep, about 2 P multiply-adds a step"
        )
        d.text(left + 200, 392, words, INK, 14)
    return d


def growth() -> Drawing:
    """Three moments in the life of a cascade."""
    d = Drawing(820, 330)
    names = ("one stage", "after grow()", "after grow() again")
    for moment, name in enumerate(names):
        left = 20 + 270 * moment
        d.text(left + 110, 20, f"!{name}")
        d.box(left, 280, 235, 32, "x, the observation", GREEN)
        for stage in range(moment + 1):
            live = stage == moment
            y = 222 - 66 * stage
            words = f"stage {stage + 1}: " + ("live" if live else "frozen")
            d.box(left + 40, y, 125, 36, words, ORANGE if live else GREY)
            d.arrow((left + 15, 280), (left + 15, y + 18), (left + 38, y + 18), colour=GREEN)
            d.arrow((left + 165, y + 10), (left + 220, y + 10), (left + 220, 66), colour=BLUE)
            if stage:
                d.arrow((left + 100, y + 66), (left + 100, y + 38), colour=GREY)
            if stage == 2:
                d.arrow(
                    (left + 165, y + 158), (left + 212, y + 150), (left + 212, y + 40), (left + 167, y + 28),
                    colour=GREY, curved=True,
                )  # fmt: skip
        d.box(left + 135, 38, 100, 28, "head", BLUE)
    return d


def clocks() -> Drawing:
    """What is kept and when weights change: whole sequences and online."""
    d = Drawing(820, 400)
    steps, gap, first = 6, 92, 150
    for top, name in ((30, "!BPTT: a batch of whole sequences"), (220, "!Online: a stream that never ends")):
        d.text(20, top, name, INK, 15, "start")
        for t in range(steps):
            x = first + gap * t
            d.circle(x, top + 62, 20, f"t={t + 1}", BLUE)
            d.arrow((x + 20, top + 62), (x + gap - 22, top + 62), colour=BLUE)
    x = first + gap * steps
    d.box(x, 68, 100, 48, "loss,\nupdate", ORANGE)
    for t in range(steps):
        at = first + gap * t
        d.box(at - 22, 122, 44, 20, "", GREY)
        if t:
            d.arrow((at - 22, 160), (at - gap + 22, 160), colour=ORANGE)
    d.arrow((x + 50, 116), (x + 50, 160), (first + gap * (steps - 1) + 24, 160), colour=ORANGE)
    d.text(first - 30, 132, "kept: every step", GREY, 13, "end")
    d.text(first - 30, 160, "the way back", ORANGE, 13, "end")
    for t in range(steps):
        at = first + gap * t
        d.arrow((at, 302), (at, 336), colour=ORANGE)
        d.text(at, 347, "update", ORANGE, 13)
        if t == steps - 1:
            d.box(at - 22, 362, 44, 20, "", GREY)
    d.text(first + gap * steps + 14, 282, "...", INK, 18)
    d.text(first - 30, 372, "kept: the traces", GREY, 13, "end")
    d.text(first + 10, 372, "(the same size at every step, moved along with the state)", GREY, 13, "start")
    return d


def affine() -> Drawing:
    """A cell's step in its two halves."""
    d = Drawing(760, 130)
    d.box(16, 40, 110, 50, "x, h, 1", GREEN)
    d.box(200, 40, 130, 50, "W [x, h, 1]", BLUE)
    d.box(430, 40, 110, 50, "gates", ORANGE)
    d.box(640, 40, 100, 50, "new h", GREEN)
    d.arrow((126, 65), (198, 65))
    d.arrow((330, 65), (428, 65))
    d.text(380, 52, "preactivation", INK, 12)
    d.arrow((540, 65), (638, 65))
    d.text(265, 110, "affine: all parameters", BLUE, 13)
    d.text(485, 110, "elementwise: no parameters", ORANGE, 13)
    return d


def house() -> Drawing:
    """Rooms of the package, the direction of imports, and the two seams; narrow, to be read on a phone."""
    d = Drawing(400, 752)
    d.box(10, 10, 362, 34, "!cli")
    d.box(10, 56, 362, 46, "!adapters\nRiver, scikit-learn")
    d.box(10, 114, 172, 100, "!lab\nexperiments, figures,\ntraining, sweeps,\ndata sets", BLUE)
    d.box(200, 114, 172, 100, "!rows\nsources, encoder,\nlearning, session,\nreport", GREEN)
    d.box(46, 240, 290, 46, "!RunFolder\nlab/folder, with page and progress", ORANGE)
    d.arrow((110, 214), (130, 238), colour=ORANGE)
    d.arrow((272, 214), (252, 238), colour=ORANGE)
    d.frame(10, 300, 362, 412, "the library: arrays in, arrays out")
    d.box(24, 328, 334, 46, "!verify\nis a gradient what its rule claims?")
    d.box(24, 386, 334, 46, "!fitting, loop, saving\nfit; Loop; save, load")
    d.box(24, 444, 206, 46, "!learners\nOnline:  read | learn", ORANGE)
    d.box(244, 444, 114, 46, "!tasks", GREEN)
    d.box(24, 502, 120, 40, "!objectives", ORANGE)
    d.box(238, 502, 120, 40, "!credit", BLUE)
    d.arrow((144, 522), (236, 522), colour=INK)
    d.text(190, 510, "pull")
    d.box(24, 554, 334, 30, "!model", BLUE)
    d.box(24, 596, 160, 30, "!cells", BLUE)
    d.box(198, 596, 160, 30, "!heads", BLUE)
    d.box(24, 638, 334, 62, "!types, trees, batching,\n!random, text, errors, devices\nwhat all parts are made of")
    d.arrow((388, 14), (388, 712), colour=GREY)
    d.text(200, 734, "Imports point down, never up.", GREY)
    return d


def acting() -> Drawing:
    """One step of a network that acts, and when each half knows what."""
    d = Drawing(760, 270)
    d.box(20, 104, 130, 66, "!Task\na world", GREEN)
    d.box(230, 40, 120, 54, "!read", BLUE)
    d.box(430, 40, 120, 54, "!choose", ORANGE)
    d.box(430, 176, 120, 54, "!learn", ORANGE)
    d.arrow((110, 104), (110, 67), (228, 67), colour=GREEN)
    d.text(165, 52, "x, reset", GREEN, 13)
    d.arrow((350, 67), (428, 67), colour=BLUE)
    d.text(389, 52, "prediction", BLUE, 13)
    d.arrow((490, 94), (490, 174), colour=ORANGE)
    d.text(500, 134, "the action it learns of", ORANGE, 13, "start")
    d.arrow((110, 170), (110, 216), (428, 216), colour=GREEN)
    d.text(270, 202, "y, the reward that came with x; discount", GREEN, 13)
    d.arrow((490, 40), (490, 16), (50, 16), (50, 102), colour=ORANGE)
    d.text(270, 28, "act(action)", ORANGE, 13)
    d.text(565, 200, "values, or a policy,\nof the step before", GREY, 13, "start")
    return d


DRAWINGS = {f"concepts-{f.__name__}.svg": f for f in (parts, pull, columns, growth, clocks, affine)}
DRAWINGS["house.svg"] = house
DRAWINGS["acting.svg"] = acting

if __name__ == "__main__":
    for name, draw in DRAWINGS.items():
        (FIGURES / name).write_text(draw().svg())
