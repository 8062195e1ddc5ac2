-- The way back from 0003: what it added goes, with what it holds.
DROP TABLE operation_items;
DROP TABLE operations;
