-- The way back from 0004: what it added goes, with what it holds.
DROP TABLE alerting_rules;
DROP TABLE autoscaling_policies;
DROP TABLE app_metrics;
DROP TABLE policy_rounds;
