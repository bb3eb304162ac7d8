"""What the many small frozen dataclasses have in common, once and not in each of them.

`dataclass` generates a representation and a comparison for every class anew, some 4 kB
of each; with about a hundred classes that is a hundredth of all memory. They are
declared with `repr=False, eq=False` and inherit both from here.
"""

from __future__ import annotations

import dataclasses


class Value:
    """Equal to its like with the same contents, and shown with them.

    A field that is declared with `repr=False` is not shown: it may hold a secret.
    """

    def __repr__(self) -> str:
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        shown = (f"{f.name}={getattr(self, f.name)!r}" for f in fields if f.repr)
        return f"{type(self).__qualname__}({', '.join(shown)})"

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(tuple(vars(self).values()))
