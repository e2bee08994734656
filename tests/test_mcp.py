"""The server for assistants: its tools, through the SDK's own client, and its confinement to folders."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import pytest
import soundfile
import yaml
from mcp import Client
from tiny import noise, tiny_separator, write_model

from separation import Separator, mcp_server
from separation.errors import AudioError
from separation.listing import ListingRule
from separation.mcp_server import Folders
from separation.mcp_tools import build_server
from separation.presence import PresenceRule

RATE = 8000


def save(path, seconds=1.5, channels=2):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, noise(seconds, RATE, channels).T.numpy(), RATE, subtype="FLOAT")
    return path


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A folder that is served, beside one that is not; the tiny model for every name."""
    separator = tiny_separator()
    separator.listing, separator.rule = ListingRule(slope=0.0, bias=9.0, sounds=("rain", "siren")), PresenceRule(bias=9)
    monkeypatch.setattr(Separator, "from_pretrained", lambda *_, **__: separator)
    folder, outside = tmp_path / "served", tmp_path / "outside"
    save(folder / "mix.wav"), save(outside / "secret.wav"), save(folder / "sub" / "mono.wav", channels=1)
    (folder / "link.wav").symlink_to(outside / "secret.wav")
    (folder / "away").symlink_to(outside)
    (folder / "near.wav").symlink_to("mix.wav")
    (folder / "loop.wav").symlink_to("loop.wav")
    (folder / "list.wav").write_text(f"#EXTM3U\n#EXTINF:1,\n{outside / 'secret.wav'}\n")
    os.mkfifo(folder / "pipe.wav")
    return folder


def run(ask):
    """Result of a coroutine function, in a thread of its own: the browser of other tests keeps a loop in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(anyio.run, ask).result()


def call(folder, *requests, **options):
    """Results of (tool, arguments) requests to one server, through the client in memory."""

    async def ask():
        async with Client(build_server(Folders([folder]))) as client:
            return [await client.call_tool(name, arguments, **options) for name, arguments in requests]

    return run(ask)


def files(folder):
    return sorted(each.relative_to(folder).as_posix() for each in folder.rglob("*") if each.is_file())


def test_tools_and_what_they_teach(served):
    async def ask():
        async with Client(build_server(Folders([served]))) as client:
            return client.instructions, await client.list_tools()

    instructions, found = run(ask)
    tools = {tool.name: tool for tool in found.tools}
    assert set(tools) == {"list_sounds", "separate", "remove", "remix"}
    assert str(served) in instructions and "dog barking" in instructions
    assert tools["list_sounds"].annotations.read_only_hint and not tools["separate"].annotations.read_only_hint
    assert "ctx" not in tools["separate"].input_schema["properties"]
    assert tools["separate"].input_schema["additionalProperties"] is False
    assert all(each.description and each.output_schema for each in tools.values())


def test_list_separate_remove_remix(served):
    listed, separated, removed, remixed = call(
        served,
        ("list_sounds", {"file": "mix.wav", "directions": True}),
        ("separate", {"file": str(served / "mix.wav"), "sounds": ["rain", "siren"], "without": ["wind"], "rest": True}),
        ("remove", {"file": "near.wav", "sounds": ["rain", "siren"], "output": "new/clean", "end": 1.0}),
        ("remix", {"file": "sub/mono.wav", "gains": {"rain": 3, "siren": -100}, "format": "flac"}),
    )
    assert not any(each.is_error for each in (listed, separated, removed, remixed))
    sounds = listed.structured_content["sounds"]
    assert {each["sound"] for each in sounds} == {"rain", "siren"} and listed.structured_content["seconds"] == 1.5
    assert all(each["word"] == "present" and each["spans"] and "text" in each["direction"] for each in sounds)
    facts = separated.structured_content
    assert [each["content"] for each in facts["outputs"]] == ["rain", "without rain", "siren", "without siren"]
    assert [each["relative"] for each in facts["outputs"]][:2] == [
        "mix.rain_without_wind.wav",
        "mix.not_rain_without_wind.wav",
    ]
    assert all(Path(each["absolute"]) == served / each["relative"] for each in facts["outputs"])
    assert all(Path(each["absolute"]).is_file() for each in facts["outputs"])
    assert facts["sounds"][0]["presence"] > 0.99 and facts["sounds"][0]["spans"] == [[0.0, 1.5]]
    assert removed.structured_content["outputs"][0]["relative"] == "new/clean/mix.without.wav"
    assert removed.structured_content["sounds"][0]["spans"] == [[0.0, 1.0]]
    assert remixed.structured_content["outputs"][0]["relative"] == "sub/mono.remix.flac"


def test_nothing_is_replaced_unless_asked(served):
    request = {"file": "mix.wav", "sounds": ["rain"]}
    first, second, third = call(served, *[("separate", request)] * 2, ("separate", request | {"overwrite": True}))
    assert (first.is_error, second.is_error, third.is_error) == (False, True, False)
    assert second.content[0].text.endswith("mix.rain.wav already exists. Add overwrite=True to replace it.")


OUTSIDE = [
    ("../outside/secret.wav", ".. are refused"),
    ("sub/../mix.wav", ".. are refused"),
    ("{outside}/secret.wav", "outside the folders"),
    ("/etc/passwd", "outside the folders"),
    ("/dev/stdin", "outside the folders"),
    ("link.wav", "outside the folders"),
    ("away/secret.wav", "outside the folders"),
    ("loop.wav", "loop of links"),
    ("pipe.wav", "not a plain file"),
    ("sub", "not a plain file"),
    (".", "not a plain file"),
    ("", "empty"),
    ("a\nb.wav", "control characters"),
    ("mix.wav\0", "control characters"),
    ("\x1b[2J.wav", "control characters"),
    ("gone.wav", "no such file"),
    ("x" * 5000, "too long"),
    ("list.wav", "list.wav"),
]


@pytest.mark.parametrize(("name", "why"), OUTSIDE, ids=[repr(name)[:30] for name, _ in OUTSIDE])
def test_recordings_outside_the_folders_are_refused(served, name, why):
    before = files(served.parent)
    [result] = call(served, ("separate", {"file": name.format(outside=served.parent / "outside"), "sounds": ["rain"]}))
    text = result.content[0].text
    assert result.is_error and why in text
    assert "\n" not in text and "Traceback" not in text and text.endswith(".")
    assert files(served.parent) == before


@pytest.mark.parametrize(
    ("output", "why"),
    [
        ("../outside", ".. are refused"),
        ("{outside}", "outside the folders"),
        ("away", "outside the folders"),
        ("away/deeper", "outside the folders"),
        ("mix.wav", "not a folder"),
        ("mix.wav/x", "folder"),
        ("pipe.wav", "not a folder"),
        ("new\r", "control characters"),
    ],
)
def test_results_outside_the_folders_are_refused(served, output, why):
    before, output = files(served.parent), output.format(outside=served.parent / "outside")
    [result] = call(served, ("remove", {"file": "mix.wav", "sounds": ["rain"], "output": output}))
    assert result.is_error and why in result.content[0].text and "\n" not in result.content[0].text
    assert files(served.parent) == before


def test_links_in_the_place_of_results_lead_nowhere(served):
    secret = served.parent / "outside" / "secret.wav"
    before = secret.read_bytes()
    (served / "mix.rain.wav").symlink_to(secret)
    (served / ".separate.jsonl").symlink_to(served.parent / "outside" / "notes")
    request = {"file": "mix.wav", "sounds": ["rain"]}
    refused, _ = call(served, ("separate", request), ("separate", request | {"overwrite": True}))
    assert refused.is_error
    assert secret.read_bytes() == before and not (served.parent / "outside" / "notes").exists()


@pytest.mark.parametrize(
    ("tool", "arguments", "why"),
    [
        ("separate", {"sounds": []}, "1 to 20 different sounds"),
        ("separate", {"sounds": ["rain", " rain "]}, "1 to 20 different sounds"),
        ("separate", {"sounds": ["..."]}, "in a few words"),
        ("separate", {"sounds": ["rain\x07"]}, "in a few words"),
        ("separate", {"sounds": "x" * 400}, "sounds"),
        ("separate", {"sounds": ["x" * 400]}, "in a few words"),
        ("separate", {"sounds": ["rain"], "format": "doc"}, "doc"),
        ("separate", {"sounds": ["rain"], "start": 2, "end": 1}, "begin before it ends"),
        ("separate", {"sounds": ["rain", "siren"], "without": ["wind", " Rain"]}, "“rain” cannot be in both"),
        ("separate", {"sounds": ["rain"], "volume": 3}, "volume"),
        ("separate", {}, "sounds"),
        ("remix", {"gains": {"rain": 100}}, "more than +60 dB"),
        ("remix", {"gains": {}}, "1 to 20 different sounds"),
        ("fly", {}, "fly"),
    ],
)
def test_wrong_requests_cost_one_sentence(served, tool, arguments, why):
    before = files(served)
    [result] = call(served, (tool, {"file": "mix.wav"} | arguments))
    text = result.content[0].text
    assert result.is_error and why in text and "\n" not in text and "Traceback" not in text
    assert files(served) == before


def test_limits_of_size_and_length(served, monkeypatch):
    from separation import mcp_tools

    monkeypatch.setattr(mcp_tools, "MAX_HOURS", 1 / 3600)
    monkeypatch.setattr(mcp_server, "MAX_BYTES", 20000)
    [large] = call(served, ("list_sounds", {"file": "mix.wav"}))
    assert large.is_error and "has more than" in large.content[0].text
    monkeypatch.setattr(mcp_server, "MAX_BYTES", 1 << 30)
    [result] = call(served, ("list_sounds", {"file": "mix.wav"}))
    assert result.is_error and "is longer than" in result.content[0].text


def test_progress_cancellation_and_one_request_at_a_time(served):
    save(served / "long.wav", seconds=150)
    told, left = [], []

    async def ask():
        async with Client(build_server(Folders([served]))) as client:
            with anyio.CancelScope() as scope:

                async def progress(done, total, message):
                    told.append((done, total))
                    scope.cancel()

                arguments = {"file": "long.wav", "sounds": ["rain"]}
                await client.call_tool("separate", arguments, progress_callback=progress)
            left.extend(files(served))

            async def work(sound):
                results.append(await client.call_tool("separate", {"file": "mix.wav", "sounds": [sound]}))

            results = []
            async with anyio.create_task_group() as group:
                group.start_soon(work, "rain")
                group.start_soon(work, "siren")
            return scope.cancelled_caught, results

    cancelled, results = run(ask)
    assert cancelled and 0 < told[0][0] < 1 and told[0][1] == 1
    assert not any("rain" in name or name.endswith(".part") for name in left)
    assert [each.is_error for each in results] == [False, False]


def test_the_command_refuses_in_one_sentence(tmp_path, capsys, monkeypatch):
    assert mcp_server.main([str(tmp_path / "gone")]) == 2
    assert capsys.readouterr().err == f"separate-mcp: {tmp_path / 'gone'}: no such file or directory.\n"
    assert mcp_server.main([str(tmp_path), "--model", "nothing"]) == 2
    assert "nothing" in capsys.readouterr().err
    for name in [name for name in sys.modules if name.split(".")[0] in ("mcp", "mcp_types")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "separation.mcp_tools")
    monkeypatch.setitem(sys.modules, "mcp", None)
    assert mcp_server.main([str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        'separate-mcp: the package mcp is missing; install it with: pip install "separation[mcp]"\n'
    )
    with pytest.raises(AudioError, match="not a folder"):
        Folders([save(tmp_path / "a.wav")])


def test_over_standard_input_and_output(tmp_path):
    """Lines that are no messages do not end the server, but the end of its input does."""
    model, folder = write_model(tmp_path / "model", name="tiny"), tmp_path / "served"
    config = yaml.safe_load((model / "config.yaml").read_text())
    config |= {"listing": {"slope": 0.0, "bias": 9.0, "sounds": ["rain", "siren"]}, "presence": {"bias": 9.0}}
    (model / "config.yaml").write_text(yaml.safe_dump(config))
    save(folder / "mix.wav")
    words = [sys.executable, "-m", "separation.mcp_server", str(folder), "--model", str(model), "--device", "cpu"]
    client = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "0"}}
    asked = [
        ("initialize", client),
        ("tools/list", {}),
        ("tools/call", {"name": "remix", "arguments": {"x": 1}}),
        ("tools/call", {"name": "list_sounds", "arguments": {"file": "mix.wav"}, "_meta": {"progressToken": "here"}}),
        ("tools/call", {"name": "separate", "arguments": {"file": "mix.wav", "sounds": ["rain"]}}),
        ("tools/call", {"name": "separate", "arguments": {"file": "../mix.wav", "sounds": ["rain"]}}),
    ]
    first, *others = (
        json.dumps({"jsonrpc": "2.0", "id": number, "method": name, "params": given})
        for number, (name, given) in enumerate(asked)
    )
    started = '{"jsonrpc": "2.0", "method": "notifications/initialized"}'
    odd = ["{", "[]", "null", '{"jsonrpc": "2.0"}', "[" * 9999, "\0", "x" * (5 << 20)]
    odd.append(f'{{"id": "{"y" * (5 << 20)}"}}')
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, **pipes) as server:
        printed, warnings = [], threading.Thread(target=lambda: printed.append(server.stderr.read()))
        warnings.start()
        for line in (first, started, *odd, *others):
            server.stdin.write(line + "\n")
        server.stdin.flush()
        found, told = {}, []
        while len(found) < len(asked):
            answer = json.loads(server.stdout.readline())
            if "id" in answer:
                found[answer["id"]] = answer.get("result")
            else:
                told.append(answer["params"])
        server.stdin.close()
        assert server.wait(60) == 0 and server.stdout.read() == ""
        warnings.join()
    assert printed == [""]
    _, tools, wrong, listed, written, refused = (found[number] for number in range(len(asked)))
    assert len(tools["tools"]) == 4 and wrong["isError"]
    assert {each["sound"] for each in listed["structuredContent"]["sounds"]} & {"rain", "siren"}
    assert (told[-1]["progressToken"], told[-1]["progress"]) == ("here", 1.0)
    assert written["structuredContent"]["outputs"][0]["relative"] == "mix.rain.wav"
    assert (folder / "mix.rain.wav").is_file()
    assert refused["isError"] and refused["content"][0]["text"] == "../mix.wav: names with .. are refused."
