-- Run once, by the image, when the volume is empty: a database for the server and one for each application. In
-- production give each a role of its own; here they share one.
CREATE DATABASE segno;
CREATE DATABASE orders;
CREATE DATABASE checkout;
