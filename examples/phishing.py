"""A worked example: classify a stream through River's interface, beside River's own model.

    pip install "onward[river]"
    python examples/phishing.py

Websites that phish or do not (River's bundled data). Every row is predicted, scored, then learned, by River's own
`progressive_val_score`; the model is pickled in the middle and goes on as if nothing had happened.
"""

import pickle
import sys

try:
    from river import datasets, evaluate, linear_model, metrics, preprocessing
except ImportError:
    sys.exit(
        'examples/phishing.py needs River: pip install "onward[river]"; '
        'from a checkout, in its folder: pip install ".[river]"'
    )

from onward.adapters.river import OnlineClassifier


def main() -> None:
    """Two models on the same stream, and a restart."""
    rival = preprocessing.StandardScaler() | linear_model.LogisticRegression()
    mixed = OnlineClassifier(experts=True)
    for name, model in (("OnlineClassifier", OnlineClassifier()), ("with experts", mixed), ("River's logistic", rival)):
        score = evaluate.progressive_val_score(datasets.Phishing(), model, metrics.Accuracy() + metrics.LogLoss())
        print(f"{name:16} {score}")
    model = OnlineClassifier()
    rows = list(datasets.Phishing())
    for x, y in rows[:600]:
        model.learn_one(x, y)
    again = pickle.loads(pickle.dumps(model))
    x, _ = rows[600]
    print("before and after a restart:", model.predict_proba_one(x), again.predict_proba_one(x))


if __name__ == "__main__":
    main()
