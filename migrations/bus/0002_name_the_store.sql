-- Sequence numbers begin anew in a new database. What is sent elsewhere under a number of this one carries this as well, so
-- that a gateway whose disk was replaced is not taken for one that repeats itself. 48 bits of chance, positive.
INSERT INTO meta VALUES ('store_id', abs(random() % 281474976710656));
