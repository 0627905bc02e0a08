"""The catalogue: every method of the surveys as a row of data, and the way from a row to its recipe. Imports no torch."""

from lilliput.methods.bibliography import Reference, bibliography
from lilliput.methods.catalogue import FAMILIES, Family, Row, as_json, build, family, get, listing, rows

__all__ = ["FAMILIES", "Family", "Reference", "Row", "as_json", "bibliography", "build", "family", "get", "listing", "rows"]
