"""scikit-learn's own checks on the scorer, with and without a bank."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from conceptlab.bank import BankScorer


@parametrize_with_checks([BankScorer(), BankScorer(similarity="cosine")])
def test_scikit_learn_contract(estimator, check):
    check(estimator)
