"""What a job has done in the runner's folder is remembered, and costs it the tokens."""

from __future__ import annotations

from miglet.runner.folder_record import FolderRecord
from tests.runner.releases import JOB, root


@root
def test_a_job_that_has_run_in_a_changeable_folder_costs_it_the_tokens(
    tmp_path, installed
):
    record = FolderRecord(tmp_path, installed)
    (installed / "config.sh").chmod(0o777)
    assert record.danger(JOB, removing=False) == ""
    record.note_job()
    assert "config.sh" in record.danger(JOB, removing=False)
    successor = FolderRecord(tmp_path, installed)
    assert "config.sh" in successor.danger(JOB, removing=False)
    assert successor.danger(None, removing=False) == ""


@root
def test_a_registration_that_a_job_has_changed_is_not_removed_with_a_token(
    tmp_path, installed
):
    record = FolderRecord(tmp_path, installed)
    (installed / ".runner").write_text('{"gitHubUrl": "https://github.com/octo"}')
    record.note_registration()
    record.note_job()
    assert record.danger(JOB, removing=True) == ""
    (installed / ".runner").write_text('{"gitHubUrl": "https://evil.example"}')
    assert "changed" in record.danger(JOB, removing=True)
    assert record.danger(JOB, removing=False) == ""
