"""Names without what wrappers added."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttcompress.checkpoint.names import canonical_names, unused_name


@pytest.mark.parametrize(
    "keys, names",
    [
        (["module.a", "module.b.c"], ["a", "b.c"]),
        (["_orig_mod.a", "_orig_mod.b"], ["a", "b"]),
        (["module._orig_mod.a", "module._orig_mod.b"], ["a", "b"]),
        (["_orig_mod.module.a"], ["a"]),
        (["module.module.a"], ["a"]),
        (["lstm._orig_mod.w", "head.w"], ["lstm.w", "head.w"]),
        (["module.a", "b"], ["module.a", "b"]),
        (["rnns.0.module.w"], ["rnns.0.module.w"]),
        (["module."], ["module."]),
        (["a._orig_mod.w", "a.w"], ["a._orig_mod.w", "a.w"]),
        (["model.module_list.0.w"], ["model.module_list.0.w"]),
        (["_forward_module.a", "_forward_module.b"], ["a", "b"]),
        (["module._forward_module._orig_mod.a"], ["a"]),
        (
            ["_fsdp_wrapped_module.a._checkpoint_wrapped_module.w", "_fsdp_wrapped_module.b.w"],
            ["a.w", "b.w"],
        ),
        (["a._fsdp_wrapped_module._checkpoint_wrapped_module._fpw_module.w"], ["a.w"]),
        (["my_forward_module.w", "a._orig_models.w"], ["my_forward_module.w", "a._orig_models.w"]),
        (["a._forward_module.w", "a.w"], ["a._forward_module.w", "a.w"]),
        ([], []),
    ],
)
def test_wrappers_are_removed(keys: list[str], names: list[str]) -> None:
    assert list(canonical_names(keys)) == names


PARTS = st.lists(st.sampled_from(["a", "module", "_orig_mod", "w"]), min_size=1, max_size=4)


@given(st.lists(PARTS.map(".".join), unique=True))
def test_names_stay_apart(keys: list[str]) -> None:
    names = canonical_names(keys)
    assert len(set(names)) == len(keys)
    assert all(
        key.endswith(name) or "_orig_mod" in key for key, name in zip(keys, names, strict=True)
    )


def test_an_unused_name_is_found() -> None:
    assert unused_name("a", {"b"}) == "a"
    assert unused_name("a", {"a", "a_"}) == "a__"
