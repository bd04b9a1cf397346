"""Student and teacher of stage two."""

import pytest

from tests.fixtures.pretraining import build_student_teacher


def test_drop_path_is_in_the_student_only(section):
    networks = build_student_teacher(section.model_copy(update={"drop_path": 0.2}), 8, 1, "cpu")
    assert [block.drop_path for block in networks.student.encoder.blocks] == pytest.approx([0, 0.2])
    assert [block.drop_path for block in networks.teacher.encoder.blocks] == [0, 0]


def test_the_weights_do_not_depend_on_the_losses(section):
    one, other = (
        build_student_teacher(section.model_copy(update={"alpha_inter": weight}), 8, 1, "cpu") for weight in (0.0, 1.0)
    )
    pairs = zip(one.student.parameters(), other.student.parameters(), strict=True)
    assert all((mine == theirs).all() for mine, theirs in pairs)
    assert one.centers.keys() == {"self", "intra", "inter"}
