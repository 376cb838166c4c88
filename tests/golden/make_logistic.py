"""Writes what scikit-learn's logistic regression gives on small tokens with soft labels.

    pip install scikit-learn==1.9.1
    python tests/golden/make_logistic.py            # write logistic.safetensors
    python tests/golden/make_logistic.py --check    # compute again and compare

It knows no soft labels: each token is taken once for every class, with its share as the weight.
"""

import sys

import numpy as np
import sklearn
import torch
from golden_files import command_line, write
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

NUM, WIDTH, CLASSES, L2S = 150, 6, 5, (1e-1, 1e-3)


def inputs() -> tuple[np.ndarray, np.ndarray]:
    """Tokens [NUM, WIDTH], correlated, far from 0, one entry constant; shares [NUM, CLASSES], none of class 2."""
    random = np.random.default_rng(0)
    shares = random.dirichlet([0.2] * CLASSES, NUM)
    shares[:, 2] = 0
    shares /= shares.sum(axis=1, keepdims=True)
    tokens = shares @ random.normal(size=(CLASSES, WIDTH)) + 0.5 * random.normal(size=(NUM, WIDTH))
    tokens = tokens @ random.normal(size=(WIDTH, WIDTH)) * 10.0 ** np.arange(-1, WIDTH - 1) + 50
    tokens[:, 3] = 7.0
    return tokens.astype(np.float32), shares.astype(np.float32)


def main() -> int:
    """Writes or checks; returns the exit status."""
    args = command_line(__doc__, check=True).parse_args()
    tokens, shares = inputs()
    scaled = StandardScaler().fit_transform(tokens.astype(np.float64))
    rows, classes = np.nonzero(shares)
    tensors = {"tokens": torch.from_numpy(tokens), "soft_labels": torch.from_numpy(shares)}
    for l2 in L2S:
        model = LogisticRegression(C=1 / (l2 * NUM), tol=1e-9, max_iter=10000)
        model.fit(scaled[rows], classes, sample_weight=shares[rows, classes])
        tensors[f"{l2}/weight"], tensors[f"{l2}/bias"] = map(torch.from_numpy, (model.coef_, model.intercept_))
    same = write("logistic.safetensors", tensors, check=args.check, sklearn=sklearn.__version__, l2s=L2S)
    return int(not same)


if __name__ == "__main__":
    sys.exit(main())
