-- The way back from 0005: what it added goes, with what it holds. Organizations stay.
DROP TABLE removed_members;
DROP TABLE domain_claims;
DROP TABLE join_secrets;
DROP TABLE roles;
DROP TABLE users;
