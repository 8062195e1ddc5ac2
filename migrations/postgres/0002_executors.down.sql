-- The way back from 0002: what it added goes, with what it holds.
DROP TABLE evictions;
DROP TABLE instances;
DROP TABLE recovery_attempts;
DROP TABLE recoveries;
DROP TABLE executors;
