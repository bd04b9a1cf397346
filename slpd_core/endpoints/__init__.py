"""Endpoints: what a task predicts, its truth, groups and scores, and models of mean features, on plain arrays.

==============  ==========================================  =========================================  =================
kind            network: outputs, loss                      prediction                                 scores
==============  ==========================================  =========================================  =================
classification  C; cross-entropy                            softmax of the logits                      score_classes
ordinal         1, OrderedThresholds(C); ordinal_loss       exp of ordinal_log_probabilities           score_ordinal
regression      1; standardized_loss, as target_scale says  output * scale + mean                      score_regression
survival        1; cox_loss over a batch of bags            risk: standardized by the training risks   score_survival
==============  ==========================================  =========================================  =================

`kinds` has a class per kind of `endpoint`, the only thing that the stages ask. Siblings of knn and logreg:
classification and ordinal have themselves; regression predict_knn_regression and fit_ridge; survival predict_knn_risk
and fit_cox.

Each fold is scored by itself, since risks of different models have no common scale but that of their training cases: a
risk is in standard deviations of theirs, from their median. The groups above and below 0 of all folds together have one
kaplan_meier curve each and one logrank_test.

Intervals: bootstrap_interval for one test set or an external cohort; without_each_patient for the jackknife over folds.
"""
