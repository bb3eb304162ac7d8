"""Times and lines that these tests share."""

AT = 1767323045.0


def write(path, text):
    with open(path, "ab") as file:
        file.write(text if isinstance(text, bytes) else text.encode())
