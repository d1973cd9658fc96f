"""What the fuzz test makes before it begins."""

# The consumer that is fetched from.
STANDING = "standing"
# The token that everything is asked with.
OWN_TOKEN = "fuzz"
