"""What a page tells people to type, a test types."""

import pytest

from tests import documents


@pytest.mark.parametrize("page", documents.PAGES, ids=lambda page: page.parent.name + page.stem)
def test_every_code_block_is_typed_or_marked(page):
    """In a language that the tests type, or under a comment that says why it is not typed."""
    for block in documents.blocks(page):
        assert block.marked or block.language in documents.TYPED, block.place
