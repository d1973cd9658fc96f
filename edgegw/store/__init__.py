"""The only SQL of the gateway: journal (loop side), writer and reader (one thread each), migrations, the data folder."""
