-- The way back from 0006: what it added goes, with what it holds.
DROP TABLE abandoned_executors;
DROP TABLE alert_attempts;
DROP TABLE alert_deliveries;
DROP TABLE alerts;
ALTER TABLE alerting_rules DROP COLUMN told_at;
DROP TABLE alerting_rule_channels;
DROP TABLE alert_channels;
