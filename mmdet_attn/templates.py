"""Fill the HTML templates of the package."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(package: str, **content: Any) -> str:
    """Fill `page.html.j2` of a package; names are escaped."""
    environment = Environment(
        loader=PackageLoader(package, '.'),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template('page.html.j2').render(content)
