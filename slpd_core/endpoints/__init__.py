"""Endpoints that are not classes: their statistics, strata, and models of mean features, on plain arrays.

==============  ==========================================  =========================================  =================
kind            network: outputs, loss                      prediction                                 scores
==============  ==========================================  =========================================  =================
classification  C; cross-entropy                            softmax of the logits                      report.metrics
ordinal         1, OrderedThresholds(C); ordinal_loss       exp of ordinal_log_probabilities           score_ordinal
regression      1; standardized_loss, as target_scale says  output * scale + mean                      score_regression
survival        1; cox_loss over a batch of bags            the output is the risk, a log hazard ratio  score_survival
==============  ==========================================  =========================================  =================

The losses are in `evaluation.losses`; no output has another activation. Cox's loss needs many bags per step, and class-
weighted sampling is for classes alone: other kinds take each bag once per epoch.

Siblings of knn and logreg: classification and ordinal have themselves; regression predict_knn_regression and fit_ridge;
survival predict_knn_risk and fit_cox.

Folds: class_strata (ordinal and classification), regression_strata and survival_strata return the labels that
`evaluation.folds.partition` stratifies by. Risks of different folds have no common scale: score each fold, and pass the
risks of its training part to split_at_median as the reference. The groups of all folds together have one kaplan_meier
curve each and one logrank_test.

Intervals: bootstrap_interval for one test set or an external cohort; without_each_patient for the jackknife over folds.
"""
