-- The way back from 0008: what it added goes, with what it holds.
DROP TABLE workflow_views;
