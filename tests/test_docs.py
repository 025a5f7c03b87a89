"""The manual and the READMEs say what the source says."""

import sys

from conftest import ROOT

sys.path.insert(0, str(ROOT / 'docs'))

import errors
import tables


def test_every_error_has_an_entry():
    keys = errors.keys()
    lacking = [
        f'{site.place}: {site.message}'
        for site in errors.sites()
        if not any(errors.matches(key, site.message) for key in keys)
    ]
    assert not lacking, '\n'.join(lacking)


def test_every_entry_is_an_error():
    messages = [site.message for site in errors.sites()]
    stale = [
        key
        for key in errors.keys()
        if not any(errors.matches(key, message) for message in messages)
    ]
    assert not stale, '\n'.join(stale)
