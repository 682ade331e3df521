"""The pages that send files: no form for those who may not send it."""

from __future__ import annotations


async def test_who_may_only_look_finds_no_form_to_send(place, tmp_path):
    names = ("upload_tmp_dir", "process_work_dir", "output_root")
    tokens = {"api_tokens": "a-token-of-sixteen-characters", "api_read_tokens": "a-token-that-only-reads"}
    client = await place.start(**tokens, **{name: tmp_path / name for name in names})
    for token, may_send in (("a-token-of-sixteen-characters", True), ("a-token-that-only-reads", False)):
        for path in ("/upload", "/cut"):
            text = await (await client.get(path, headers={"Authorization": f"Bearer {token}"})).text()
            assert ('type="file"' in text) is may_send
            assert ("You may look, and ask for nothing" in text) is not may_send
