"""Parameters of a wrong kind are told by name, before the work begins."""

import pytest
from exceptions import PARAMETERS
from instances import feature_estimators, features, fitted, name_of
from sklearn.base import clone

from conceptlab.errors import ConceptlabError

pytestmark = pytest.mark.filterwarnings("ignore")
WRONG: tuple[object, ...] = ("nonsense", None, [], -1, 1.5, float("nan"))


def estimators():
    return list({name_of(e): e for e in reversed(feature_estimators())}.values())


@pytest.mark.parametrize("estimator", estimators(), ids=name_of)
def test_answer(estimator):
    X, wrong = features(), []
    for name, usual in estimator.get_params(deep=False).items():
        for value in WRONG:
            if value == usual or name in PARAMETERS:
                continue
            try:
                fitted(clone(estimator).set_params(**{name: value}), X)
            except ConceptlabError:
                continue
            except Exception as error:
                wrong.append(f"{name}={value!r}: {error!r}"[:150])
    assert wrong == []
