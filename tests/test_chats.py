"Chat exports and transcripts: each kind in the forms in which people bring it."
import json
import zipfile
from datetime import datetime
from pathlib import Path

import pytest

from latent_summ.data.chats import day_order, parse_file, read_chats, read_export
from latent_summ.data.names import anonymise
from latent_summ.runtime import DataError

CASES = Path(__file__).resolve().parent / "cases"
LINES = ["Maya: did you feed the parrot?", "Tom: not yet, I am still at the garage", "Maya: ok, then I will do it at 6"]


def write(folder, content, name="export.txt"):
    path = folder / name
    if isinstance(content, str): path.write_text(content, encoding="utf-8", newline="")
    elif isinstance(content, bytes): path.write_bytes(content)
    else: path.write_text(json.dumps(content), encoding="utf-8")
    return path


def texts(folder, content, **options):
    rows = read_chats(write(folder, content), **options)
    return rows if rows is None else [row["text"].split("\n") for row in rows]


def dropped(path):
    _, chats = read_export(path)
    return {why: n for chat in chats for why, n in chat.dropped.items()}


# --- the cases that failed -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name, lines", [
    ("whatsapp-android.txt", [LINES[0], LINES[1] + " and my phone is nearly empty", LINES[2]]),
    ("whatsapp-ios.txt", LINES),
    ("slack-channel-day.json", ["Maya Ode: did you feed the parrot @Tom Ilk?", "Tom Ilk: not yet, I am still at the garage :sweat_smile:",
                                "Maya Ode: ok, then I will do it at 6"]),
    ("meeting.vtt", ["Maya Ode: did you feed the parrot?", "Tom Ilk: not yet, I am still at the garage"]),
])
def test_cases(name, lines, tmp_path):
    row, = read_chats(CASES / name)
    assert row["text"].split("\n") == lines and row["id"] == name.rsplit(".", 1)[0]
    copy = write(tmp_path, (CASES / name).read_bytes(), "export.bin")  # what a file holds counts, not its name
    assert read_chats(copy)[0]["text"] == row["text"]


OTHERS = ["", "\n", "Once upon a time there was a parrot.\nIt spoke: rarely.\n", 'id,dialogue,summary\n1,"Anna: hi\nBen: yo",x\n',
          '{"id": 1, "dialogue": "Anna: hi"}\n{"id": 2, "dialogue": "Ben: no"}\n', '[{"text": "a"}, {"text": "b"}]',
          '{"messages": [{"role": "user", "content": "hi"}]}', "[1] Anna: a\n[2] Ben: b\n",
          "2023-12-31 21:05:12,123 - root - INFO: started\n2023-12-31 21:05:13,123 - root - INFO: done\n",
          "Anna: hi Ben: yes\nAnna: so? Ben: no\nBen: well Anna: ok\n", "name: x\nversion: 1\nlicense: mit\n",
          "# Title\n\n12/31/23 was a Sunday - it: rained\n"]


@pytest.mark.parametrize("content", OTHERS)
def test_other_files_are_left_alone(content, tmp_path): assert read_chats(write(tmp_path, content)) is None


# --- WhatsApp --------------------------------------------------------------------------------------------------------

STAMPS = ["31.12.23, 21:05 - ", "31.12.23 um 21:05 - ", "31.12.2023, 21:05 - ", "31/12/2023 21:05 - ", "31/12/2023, 21:05 - ", "31-12-2023 21:05 - ",
          "2023-12-31 21:05 - ", "2023-12-31, 21:05 - ", "2023/12/31 21:05 - ", "2023/12/31, 21:05 - ", "31. 12. 2023 21:05 - ",
          "31.12.2023. 21:05 - ",
          "12/31/23, 9:05 PM - ", "12/31/23, 9:05\u202fPM - ", "12/31/23, 9:05\xa0PM - ", "12/31/23, 21:05 - ", "31/12/23, 9:05 pm - ",
          "31/12/23, 9:05 p. m. - ",
          "31/12/23, 9:05 p.\xa0m. - ", "31.12.23 г., 21:05 - ", "2023/12/31 下午9:05 - ", "2023. 12. 31. 오후 9:05 - ", "31/12/23, 9:05 م - ",
          "٣١\u200f/١٢\u200f/٢٠٢٣، ٩:٠٥ م - ", "21:05, 31/12/2023 - ", "31.12.2023 klo 21.05 - ", "31/12/2023 à 21:05 - ", "31/12/23, 21:05 – ",
          "[31.12.23, 21:05:12] ", "[12/31/23, 9:05:12 PM] ", "[12/31/23, 9:05:12\u202fPM] ", "\u200e[31/12/2023, 21:05:12] ",
          "[2023-12-31, 21:05:12] ",
          "[31/12/2023 21:05:12] ", "[31.12.2023 klo 21.05.12] ", "[2023/12/31 下午9:05:12] ", "[9:05 PM, 12/31/2023] ", "[21:05, 31.12.2023] ",
          "31/12/23 21:05:12: "]


@pytest.mark.parametrize("stamp", STAMPS)
def test_whatsapp_stamps(stamp, tmp_path):
    bodies = ["Maya: did you feed\nthe parrot?", "Tom: at 8:30, I said: yes", "Maya created group \"Zoo\""]
    path = write(tmp_path, "\ufeff" + "\r\n".join(stamp + body for body in bodies[:2]))
    name, (chat,) = read_export(path)
    assert name == "WhatsApp export"
    assert [f"{m.speaker}: {m.text}" for m in chat.messages] == ["Maya: did you feed the parrot?", "Tom: at 8:30, I said: yes"]
    assert all(m.time.replace(second=0) == datetime(2023, 12, 31, 21, 5) for m in chat.messages)


@pytest.mark.parametrize("clock, hour", [("12:30 AM", 0), ("12:30 PM", 12), ("1:30 am", 1), ("11:30 p. m.", 23), ("00:30", 0), ("23:30", 23),
    ("上午12:30", 0), ("下午12:30", 12)])
def test_whatsapp_hours(clock, hour, tmp_path):
    _, (chat,) = read_export(write(tmp_path, f"31/12/23, {clock} - Maya: hi\n31/12/23, {clock} - Tom: hi"))
    assert chat.messages[0].time.hour == hour


MARKS = ["<Media omitted>", "<Medien ausgeschlossen>", "<Médias omis>", "<Multimedia omitido>", "<Mídia oculta>", "<Arquivo de mídia oculto>",
    "<Media omessi>",
         "<Media weggelaten>", "<Без медиафайлов>", "<Medya dahil edilmedi>", "<メディアは含まれていません>", "<省略多媒体文件>", "image omitted",
         "\u200eimage omitted", "video omitted",
         "GIF omitted", "sticker omitted", "audio omitted", "document omitted", "Contact card omitted", "Bild weggelassen",
         "\u200eVideo weggelassen", "Audio weggelassen",
         "imagem ocultada", "imagen omitida", "image absente", "immagine omessa", "afbeelding weggelaten",
         "\u200e<attached: 00000012-PHOTO-2024-01-01.jpg>",
         "IMG-20231231-WA0001.jpg (file attached)", "\u200eIMG-20231231-WA0001.jpg (Datei angehängt)", "plan.pdf (arquivo anexado)",
         "plan.pdf • \u200e4 pages \u200edocument omitted"]
GONE = ["This message was deleted", "This message was deleted.", "You deleted this message", "Diese Nachricht wurde gelöscht.",
    "Du hast diese Nachricht gelöscht.",
        "Mensagem apagada", "Ce message a été supprimé", "Se eliminó este mensaje", "Questo messaggio è stato eliminato",
        "\u200eThis message was deleted."]
SYSTEM = ["\u200eMessages and calls are end-to-end encrypted. No one can read them.", "Messages and calls are end-to-end encrypted.",
    "\u200eMaya added Tom",
          "\u200eAnruf verpasst", "Missed voice call", "Missed video call at 9:05 PM", "Nachrichten und Anrufe sind Ende-zu-Ende-verschlüsselt.",
          "Maya left"]
SAID = ["nothing omitted!", "I left the image omitted from the page", "<3", "<b>", "a < b and b > c", "see https://a.org/x:y", "null", "NA", "8:30",
    "this message was deleted by Tom, why?",
        "Tom added sugar", "the media: omitted", "video call. now?? I am on the bus and my battery is flat"]


@pytest.mark.parametrize("why, body", [*(("media marks", m) for m in MARKS), *(("deleted messages", m) for m in GONE),
    *(("system lines", m) for m in SYSTEM), *((None, m) for m in SAID)])
@pytest.mark.parametrize("stamp", ["31.12.23, 21:05 - ", "[12/31/23, 9:05:12 PM] "])
def test_whatsapp_marks(why, body, stamp, tmp_path):
    path = write(tmp_path, f"{stamp}Tom: hello\n{stamp}Maya: {body}\n{stamp}Maya: bye")
    lines = read_chats(path)[0]["text"].split("\n")
    assert lines == ["Tom: hello", *([] if why else [f"Maya: {body}"]), "Maya: bye"]
    assert dropped(path) == ({why: 1} if why else {})


@pytest.mark.parametrize("body, text", [("hi <This message was edited>", "hi"), ("hi \u200e<This message was edited>", "hi"),
    ("hallo <Diese Nachricht wurde bearbeitet.>", "hallo"),
    ("oi <Mensagem editada>", "oi"), ("IMG-20231231-WA0001.jpg (file attached)\nlook: the parrot", "look: the parrot"), ("<Media omitted>\nlook",
    "look"),
    ("\u200e<attached: 1-PHOTO.jpg>\nlook", "look"), ("ask @\u2068Tom Ilk\u2069", "ask @Tom Ilk"), ("\u200e@\u2068Tom Ilk\u2069 hi", "@Tom Ilk hi"),
    ("one\n\n  two\n31.12 party", "one two 31.12 party"),
    ("POLL:\nparrot?\nOPTION: yes (1 vote)", "POLL: parrot? OPTION: yes (1 vote)"), ("\nbelow", "below")])
def test_whatsapp_bodies(body, text, tmp_path):
    assert texts(tmp_path, f"31.12.23, 21:05 - Tom: hello\n31.12.23, 21:05 - Maya: {body}\n31.12.23, 21:06 - Tom: bye") == [["Tom: hello", f"Maya: {text}", "Tom: bye"]]


@pytest.mark.parametrize("name, shown", [("+49 170 1234567", None), ("\u202a+49\xa0170\xa01234567\u202c", "+49 170 1234567"), ("Zoë 🦜", None),
    ("Dr. Anna-Lena O'Neil", None),
    ("Work: Anna", None), ("Anna:Work", None), ("~ Ben", "Ben"), ("~\u202fBen", "Ben"), ("李雷", None), ("Anna (Mum)", None), ("Anna :)", None)])
def test_whatsapp_names(name, shown, tmp_path):
    lines = [f"31.12.23, 21:05 - {name}: hi: you", "31.12.23, 21:06 - Tom: hello", f"31.12.23, 21:07 - {name}: bye"]
    assert texts(tmp_path, "\n".join(lines)) == [[f"{shown or name}: hi: you", "Tom: hello", f"{shown or name}: bye"]]


@pytest.mark.parametrize("line", ['Maya created group "Zoo: birds"', "Maya changed the subject from “A: b” to “C”", "Tom left",
    "Maya hat Tom hinzugefügt", "You're now an admin", "Maya changed their phone number: tap to message",
                                  "Maya changed the subject to “Zoo: birds”", "\u202a+49 170 1234567\u202c joined using this group's invite link"])
def test_whatsapp_system_lines_without_a_name(line, tmp_path):
    path = write(tmp_path, f"31.12.23, 21:04 - {line}\n31.12.23, 21:05 - Maya: hi\n31.12.23, 21:05 - {line}\n31.12.23, 21:06 - Tom: yes")
    assert read_chats(path)[0]["text"] == "Maya: hi\nTom: yes" and dropped(path) == {"system lines": 2}


@pytest.mark.parametrize("days, order", [(["31/12/23"], "day-month-year"), (["12/31/23"], "month-day-year"), (["01/02/24", "02/02/24",
    "03/02/24"], "day-month-year"),
    (["2/1/24", "2/2/24", "2/3/24"], "month-day-year"), (["05/06/24", "13/06/24"], "day-month-year"), (["03.04.24"], "day-month-year"), (["1/30/24",
    "2/1/24"], "month-day-year"),
    (["30/1/24", "1/2/24"], "day-month-year"), (["2024-03-04", "2024-03-05"], "year-month-day"), (["10/12/23", "11/12/23",
    "02/01/24"], "day-month-year")])
def test_the_order_of_the_day_is_found_and_told(days, order, tmp_path, capsys):
    import latent_summ.runtime as runtime
    path = write(tmp_path, "\n".join(f"{day}, 21:05 - Maya: hi" for day in days))
    runtime._said.clear()
    read_chats(path)
    assert f"read as {order}" in capsys.readouterr().err


def test_dates_prove_themselves_or_not():
    assert day_order([(31, 12, 23)]) == ("day-month-year", True) and day_order([(12, 31, 23)]) == ("month-day-year", True)
    assert day_order([(3, 4, 24)]) == ("day-month-year", False) and day_order([(3, 4, 24)], "month-day-year") == ("month-day-year", False)


def test_uppercase_halves_speak_american(tmp_path):
    _, (chat,) = read_export(write(tmp_path, "[03/04/2024, 6:04:40 PM] Maya: hi"))
    assert chat.messages[0].time == datetime(2024, 3, 4, 18, 4, 40)
    _, (chat,) = read_export(write(tmp_path, "03/04/2024, 6:04 pm - Maya: hi"))
    assert chat.messages[0].time == datetime(2024, 4, 3, 18, 4)


def test_long_chats_are_cut_at_a_silence(tmp_path, capsys):
    hours = ["12.03.26, 08:00", "12.03.26, 09:00", "12.03.26, 14:59", "13.03.26, 09:00"]
    path = write(tmp_path, "\n".join(f"{h} - Maya: {i}" for i, h in enumerate(hours)), "Zoo.txt")
    assert [(row["id"], row["messages"]) for row in read_chats(path)] == [("Zoo-1", 3), ("Zoo-2", 1)]
    assert "4 messages in 2 conversations (cut where nothing was said for 6 hours)" in capsys.readouterr().err
    assert len(read_chats(path, gap_hours=1)) == 3 and len(read_chats(path, gap_hours=24)) == 1


def test_what_was_left_out_is_told(tmp_path, capsys):
    write(tmp_path, (CASES / "whatsapp-android.txt").read_bytes())
    read_chats(tmp_path / "export.txt")
    assert "left out: 2 system lines, 1 media mark" in capsys.readouterr().err


# --- JSON ------------------------------------------------------------------------------------------------------------

def telegram(n, name, text, **more): return {"id": n, "type": "message", "date": f"2026-03-12T18:0{n}:00", "from": name, "from_id": f"user{n}",
    "text": text, **more}


TELEGRAM = dict(name="Zoo", type="private_group", id=7, messages=[
    dict(id=1, type="service", date="2026-03-12T18:01:00", actor="Maya", action="create_group", text=""),
    telegram(2, "Maya", ["did you ", dict(type="bold", text="feed"), " the parrot, ", dict(type="mention_name", text="Tom", user_id=2), "?"]),
    telegram(3, "Tom", "", photo="photos/1.jpg"), telegram(4, "Tom", "not yet:\nsorry", file="a.pdf"), telegram(5, None, "ok"), telegram(6, "Tom",
    "", media_type="sticker", file="s.webp")])
TELEGRAM_LINES = ["Maya: did you feed the parrot, Tom?", "Tom: not yet: sorry", "Deleted Account: ok"]


def test_telegram(tmp_path):
    path = write(tmp_path, TELEGRAM, "result.json")
    assert [(row["id"], row["text"].split("\n")) for row in read_chats(path)] == [("Zoo", TELEGRAM_LINES)]
    assert dropped(path) == {"system lines": 1, "media marks": 2}
    two = [TELEGRAM, dict(TELEGRAM, name=None, type="saved_messages", messages=[telegram(1, "Maya", "note")])]
    full = dict(about="x" * 70000, personal_information={}, chats=dict(about="", list=two), left_chats=dict(list=[dict(TELEGRAM, name="Old")]))
    assert [row["id"] for row in read_chats(write(tmp_path, full))] == ["Zoo", "saved_messages", "Old"]
    folder = tmp_path / "ChatExport_2026-03-12"
    folder.mkdir()
    write(folder, TELEGRAM, "result.json")
    (folder / "photos").mkdir()
    write(folder / "photos", b"\xff\xd8", "1.jpg")
    assert read_chats(folder)[0]["text"].split("\n") == TELEGRAM_LINES


def slack(user, text, ts, **more): return dict(type="message", user=user, text=text, ts=f"{1767722400 + ts}.000100", **more)


USERS = [dict(id="U01", name="maya", profile=dict(real_name="Maya Ode", display_name="maya")), dict(id="U02", name="tom", profile=dict(real_name="", display_name="Tom"))]
DAYS = {"zoo/2026-01-06.json": [slack("U01", "did you feed the parrot <@U02>? &lt;3", 0), slack("U03",
    "<@U03> has joined the channel", 1, subtype="channel_join"),
                                slack("U02", "see <https://a.org/x|the list> in <#C1|pets> <!channel>", 60, thread_ts="1767722400.000100"), slack("U02", "", 61, files=[{}])],
        "zoo/2026-01-07.json": [slack("U01", "good morning", 86400), slack("U09", "late", 86401), slack("U01",
        "set the topic", 86402, subtype="channel_topic")],
        "pets/2026-01-06.json": [slack("B1", "backup done", 0, subtype="bot_message", username="robot")], "pets/2026-01-05.json": []}
SLACK = {"zoo-1": "Maya Ode: did you feed the parrot @Tom? <3\nTom: see the list in #pets @channel", "zoo-2": "Maya Ode: good morning\nU09: late",
    "pets": "robot: backup done"}


@pytest.mark.parametrize("where", ["folder", "zip", "zip in a folder"])
def test_slack(where, tmp_path):
    files = {"users.json": USERS, "channels.json": [dict(id="C1", name="pets")], "integration_logs.json": [], **DAYS}
    root = tmp_path / "export"
    if where == "folder":
        for name, value in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            write(root, value, name)
    else:
        with zipfile.ZipFile(root, "w") as z:
            for name, value in files.items(): z.writestr(("my export/" if "in" in where else "") + name, json.dumps(value))
            z.writestr("__MACOSX/._users.json", b"\0")
    assert {row["id"]: row["text"] for row in read_chats(root)} == SLACK
    if where != "folder": return
    assert read_chats(root / "zoo" / "2026-01-06.json")[0]["text"] == SLACK["zoo-1"]  # users.json stands above it
    assert [row["text"] for row in read_chats(root / "zoo")] == [SLACK["zoo-1"], SLACK["zoo-2"]]


def test_slack_day_knows_those_who_write(tmp_path):
    day = [slack("U01", "hi <@U02>, <@U07>", 0, user_profile=dict(real_name="Maya Ode")), slack("U02",
    "yes", 1, user_profile=dict(real_name="", display_name="tom"))]
    assert texts(tmp_path, day) == [["Maya Ode: hi @tom, @U07", "tom: yes"]]


def discord(kind, who, text, minute, **more):
    author = dict(id=who, name={"1": "maya", "2": "tom"}[who], nickname={"1": "Maya", "2": None}[who], isBot=False)
    return dict(id="9", type=kind, timestamp=f"2026-03-12T18:{minute:02}:00.5+00:00", content=text, author=author, attachments=[], mentions=[], **more)


def test_discord(tmp_path):
    messages = [discord("GuildMemberJoin", "2", "", 1), discord("Default", "1", "did you feed **the parrot** <@2>?", 2), discord("Reply", "2",
    "no <:sad:77>\nsorry", 3),
                discord("Default", "2", "", 4), discord("ChannelPinnedMessage", "1", "Pinned a message.", 5)]
    messages[3]["attachments"] = [dict(id="1", url="x")]
    path = write(tmp_path, dict(guild=dict(id="0", name="Zoo"), channel=dict(id="1", type="GuildTextChat", name="birds"), dateRange={}, messages=messages, messageCount=5))
    assert [(row["id"], row["text"]) for row in read_chats(path)] == [("birds", "Maya: did you feed **the parrot** @tom?\ntom: no :sad: sorry")]
    assert dropped(path) == {"system lines": 2, "media marks": 1}


# --- captions and transcripts ----------------------------------------------------------------------------------------

TURNS = ["Maya Ode: did you feed the parrot?", "Tom Ilk: not yet, I am still at the garage", "Maya Ode: ok"]
FORMS = {
    "Teams vtt": "WEBVTT\r\n\r\nb1-2/13-0\r\n00:00:01.000 --> 00:00:03.200\r\n<v Maya Ode>did you feed\r\n"
                 "the parrot?</v>\r\n\r\nb1-2/14-0\r\n00:00:03.900 --> 00:00:06.000\r\n"
                 "<v Tom Ilk>not yet, I am still</v>\r\n\r\nb1-2/14-1\r\n00:00:06.000 --> 00:00:07.100\r\n"
                 "<v Tom Ilk>at the garage</v>\r\n\r\n00:00:08.000 --> 00:00:09.000\r\n<v Maya Ode>ok</v>\r\n",
    "Zoom vtt": "WEBVTT\n\n1\n00:00:01.000 --> 00:00:03.200\nMaya Ode: did you feed the parrot?\n\n2\n"
                "00:00:03.900 --> 00:00:06.000\nTom Ilk: not yet, I am still\n\n3\n00:00:06.000 --> 00:00:07.100\n"
                "Tom Ilk: at the garage\n\n4\n00:00:08.000 --> 00:00:09.000\nMaya Ode: ok\n",
    "vtt with notes and styles": "WEBVTT - meeting\nKind: captions\n\nSTYLE\n::cue { color: red }\n\nNOTE made by hand: yes\n\n"
                                 "00:01.000 --> 00:03.200 align:start\n<v.first.loud Maya Ode><i>did</i> you feed the "
                                 "parrot?\n\n00:03.900 --> 00:06.000\n<v Tom Ilk>not yet, I am still at the garage</v>\n<v Maya Ode>ok</v>\n",
    "srt": "1\n00:00:01,000 --> 00:00:03,200\nMaya Ode: did you feed the parrot?\n\n2\n00:00:03,900 --> 00:00:06,000\n"
           "Tom Ilk: not yet,\nI am still\n\n3\n00:00:06,000 --> 00:00:07,100\nat the garage\n\n"
           "4\n00:00:08,000 --> 00:00:09,000\nMaya Ode: ok\n",
    "srt in brackets": "\ufeff1\r\n00:00:01,000 --> 00:00:03,200\r\n[Maya Ode] did you feed the parrot?\r\n\r\n2\r\n"
                       "00:00:03,900 --> 00:00:06,000\r\n[Tom Ilk] <i>not yet, I am still at the garage</i>\r\n\r\n"
                       "3\r\n00:00:08,000 --> 00:00:09,000\r\n[Maya Ode] ok\r\n",
    "old Teams": "0:0:1.0 --> 0:0:3.2\nMaya Ode\ndid you feed the parrot?\n\n0:0:3.9 --> 0:0:6.0\nTom Ilk\n"
                 "not yet, I am still at the garage\n\n0:0:8.0 --> 0:0:9.0\nMaya Ode\nok\n",
    "Teams text": "Weekly zoo\n12 March 2026\n\nMaya Ode started transcription\n\nMaya Ode   0:03\ndid you feed the parrot?\n\n"
                  "Tom Ilk   0:05\nnot yet, I am still\nat the garage\n\nMaya Ode   1:02:09\nok\n\n"
                  "Maya Ode stopped transcription\n",
    "Otter": "Maya Ode  0:03  \ndid you feed the parrot?\n\nTom Ilk  0:05  \nnot yet, I am still at the garage\n\nMaya Ode  0:09  \nok\n",
    "Zoom chat": "18:02:11 From Maya Ode to Everyone:\n\tdid you feed the parrot?\n"
                 "18:03:00 From Tom Ilk to Maya Ode(Direct Message):\n\tReplying to \"did you feed th...\"\n\t\n\tnot yet, I am still at the garage\n"
                 "18:03:10 From Tom Ilk to Everyone:\n\tReacted to \"did you...\" with 👍\n18:04:00 From Maya Ode to Everyone:\n\tok\n",
    "old Zoom chat": "18:02:11\t From Maya Ode : did you feed the parrot?\n"
                     "18:03:00\t From Tom Ilk : not yet, I am still at the garage\n18:04:00\t From Maya Ode : ok\n",
    "Zoom transcript": "[Maya Ode] 18:02:11\ndid you feed the parrot?\n\n[Tom Ilk] 18:03:00\nnot yet, I am still at the garage\n\n"
                       "[Maya Ode] 18:04:00\nok\n",
    "Zoom identifiers": "WEBVTT\n\n1 \"Maya Ode\" (331)\n00:00:01.000 --> 00:00:03.200\ndid you feed the parrot?\n\n2 \"Tom Ilk\" (332)\n00:00:03.900 --> 00:00:06.000\n"
                        "not yet, I am still at the garage\n\n3 \"Maya Ode\" (331)\n00:00:08.000 --> 00:00:09.000\nok\n",
    "copied from Telegram": "Maya Ode, [12.03.2026 18:02]\ndid you feed the parrot?\n\nTom Ilk, [12.03.2026 18:03]:\n[In reply to Maya Ode]\nnot yet, I am still at the garage\n\n"
                            "Maya Ode, [12.03.2026 18:04]\nok\n",
    "copied from Slack": "Maya Ode  9:05 PM\ndid you feed the parrot?\nTom Ilk  9:06 PM\nnot yet,\n9:07\nI am still at the garage\nMaya Ode  9:08 PM\nok\n",
    "Signal": "[Mar 12, 2026, 9:05 PM] Maya Ode: did you feed the parrot?\n[Mar 12, 2026, 9:06 PM] Tom Ilk: not yet, I am still at the garage\n"
              "[Mar 12, 2026, 9:07 PM] Maya Ode: ok\n",
    "times in front": "[00:00:01] Maya Ode: did you feed the parrot?\n[00:00:03] Tom Ilk: not yet, I am still at the garage\n"
                      "[00:00:08] Maya Ode: ok\n",
    "times behind": "Maya Ode (00:01): did you feed the parrot?\nTom Ilk (00:03): not yet, I am still at the garage\nMaya Ode (00:08): ok\n",
    "Markdown": "**Maya Ode** (00:01): did you feed the parrot?\n\n**Tom Ilk** (00:03): not yet, I am still at the garage\n\n"
                "**Maya Ode** (00:08): ok\n",
    "plain": "Maya Ode: did you feed the parrot?\nTom Ilk: not yet, I am still\nat the garage\nMaya Ode: ok\n",
    "plain with empty lines": "Maya Ode:\ndid you feed the parrot?\n\nTom Ilk:\nnot yet, I am still at the garage\n\nMaya Ode:\nok\n",
    "Meet": "Maya Ode: did you feed the parrot?\n00:05:00\nTom Ilk: not yet, I am still at the garage\n00:10:00\nMaya Ode: ok\n",
    "bold": "**Maya Ode:** did you feed the parrot?\n**Tom Ilk:** not yet, I am still at the garage\n**Maya Ode:** ok\n"}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_transcripts(form, encoding, tmp_path):
    path = write(tmp_path, FORMS[form].replace("\ufeff", "").encode(encoding), "meeting.txt")
    row, = read_chats(path)
    assert row["text"].split("\n") == TURNS and row["id"] == "meeting" and row["start"] is None


@pytest.mark.parametrize("name", ["Anna (Guest)", "Müller, Jörg", "SPEAKER_00", "Speaker 1", "李雷", "#Person1#", "+49 170 1234567",
    "O'Neil-Smith Jr."])
def test_transcript_names(name, tmp_path):
    other = "SPEAKER_01" if name == "SPEAKER_00" else "Tom"
    assert texts(tmp_path, f"{name}: hi\n{other}: yes\n{name}: ok") == [[f"{name}: hi", f"{other}: yes", f"{name}: ok"]]
    assert texts(tmp_path, f"[00:01] {name}: hi\n[00:02] {other}: yes\n[00:03] {name}: ok") == [[f"{name}: hi", f"{other}: yes", f"{name}: ok"]]
    vtt = f"WEBVTT\n\n00:01.000 --> 00:02.000\n<v {name}>hi</v>\n\n00:02.000 --> 00:03.000\n<v {other}>yes: no</v>\n"
    assert texts(tmp_path, vtt) == [[f"{name}: hi", f"{other}: yes: no"]]


def test_captions_of_nobody(tmp_path):
    srt = "1\n00:00:01,000 --> 00:00:02,000\n(door opens)\n\n2\n00:00:02,000 --> 00:00:03,000\nthe question is: why?\n\n3\n00:00:03,000 --> 00:00:04,000\n- because.\n- oh!\n"
    assert texts(tmp_path, srt) == [["the question is: why?", "because.", "oh!"]]
    assert dropped(tmp_path / "export.txt") == {"sounds": 1}
    rolling = "WEBVTT\n\n00:01.000 --> 00:02.000\none<00:01.500><c> two</c>\n\n00:02.000 --> 00:02.010\none two\n\n00:02.010 --> 00:03.000\none two\nthree\n"
    assert texts(tmp_path, rolling) == [["one two three"]]


# --- folders, names, names that are hidden ---------------------------------------------------------------------------

def test_folders(tmp_path):
    write(tmp_path, (CASES / "whatsapp-ios.txt").read_bytes(), "WhatsApp Chat with Tom.txt")
    write(tmp_path, (CASES / "meeting.vtt").read_bytes(), "standup.VTT")
    write(tmp_path, b"\xff\xd8", "IMG.jpg")
    write(tmp_path, b"\0\0", ".DS_Store")
    assert [row["id"] for row in read_chats(tmp_path)] == ["WhatsApp Chat with Tom", "standup"]
    write(tmp_path, "id,text\n1,x\n", "more.csv")  # a data set
    assert read_chats(tmp_path) is None


def test_the_zip_of_a_telephone(tmp_path):
    with zipfile.ZipFile(tmp_path / "WhatsApp Chat - Tom.zip", "w") as z:
        z.writestr("_chat.txt", (CASES / "whatsapp-ios.txt").read_bytes())
        z.writestr("00000001-PHOTO.jpg", b"\xff\xd8")
    row, = read_chats(tmp_path / "WhatsApp Chat - Tom.zip")
    assert row["id"] == "WhatsApp Chat - Tom" and row["text"].split("\n") == LINES


def test_other_zips_and_folders(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.docx", "w") as z: z.writestr("word/document.xml", "<w/>")
    assert read_chats(tmp_path / "a.docx") is None
    (tmp_path / "texts").mkdir()
    for i in range(3): write(tmp_path / "texts", "Once upon a time.\nThe end.\n", f"{i}.txt")
    assert read_chats(tmp_path / "texts") is None
    write(tmp_path / "texts", "Anna: a\nBen: b\nAnna: c\n", "3.txt")
    assert read_chats(tmp_path / "texts") is None


def test_hidden_names(tmp_path):
    text = "31.12.23, 21:05 - Tom Ilk: Maya, will you feed the parrot?\n31.12.23, 21:06 - Maya Ode: sure, thanks tom! ask @\u2068Zoë K.\u2069\n01.01.24, 21:06 - Tom Ilk: Maya?"
    rows = read_chats(write(tmp_path, text, "Chat with Maya.txt"), hide_names=True)
    assert [row["text"] for row in rows] == ["#Person1#: #Person2#, will you feed the parrot?\n#Person2#: sure, thanks #Person1#! ask #Person3#",
    "#Person1#: #Person2#?"]
    assert not any("Maya" in row["id"] for row in rows) and len({row["id"] for row in rows}) == 2


@pytest.mark.parametrize("dialogue, summary, expected", [
    ("Anna: hi Ben\nBen: hello anna", "Ben greets Anna.", ["#Person1#: hi #Person2#\n#Person2#: hello #Person1#", "#Person2# greets #Person1#."]),
    ("Will: I will, May\nMay: may I?", "Will may.", ["#Person1#: I will, #Person2#\n#Person2#: may I?", "#Person1# may."]),
    ("A: a dog, B\nB: A dog", "A has a dog.", ["#Person1#: a dog, B\n#Person2#: A dog", "A has a dog."]),
    ("Me: me too\nTom: Tom's", "", ["#Person1#: me too\n#Person2#: #Person2#'s", ""]),
    ("Anna Berg: Tom!\nTom Berg: Anna Berg?", "The Bergs.", ["#Person1#: #Person2#!\n#Person2#: #Person1#?", "The Bergs."]),
    ("Ann: Anna, Joann, ann", "", ["#Person1#: Anna, Joann, #Person1#", ""]),
    ("#Person1#: hi\n#Person2#: #Person1#!", "#Person2#", ["#Person1#: hi\n#Person2#: #Person1#!", "#Person2#"]),
    ("no speaker here", "none", ["no speaker here", "none"])])
def test_anonymise(dialogue, summary, expected): assert anonymise(dialogue, summary) == expected and anonymise(*expected) == expected


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match="zip"): read_chats(write(tmp_path, b"PK\x03\x04 no zip"))
    with pytest.raises(DataError, match="meeting.srt: These captions"): read_chats(write(tmp_path, "1\n00:00:01,000 --> 00:00:02,000\n",
    "meeting.srt"))
    with pytest.raises(DataError, match="No such file"): read_chats(tmp_path / "missing.txt")


def test_bytes_of_any_kind_are_no_accident():
    for content in (b"\x00" * 100, bytes(range(256)) * 9, b"[" * 100000, b'{"messages": [' + b"1," * 9000 + b"1]}", b"WEBVTT",
                    b'{"chats": {"list": 3}}', b'{"chats": {"list": [3]}}', b'{"channel": {}, "messages": [{"author": {}}]}', b"1\n00:00:01,000 --> 00:00:02,000\n",
                    b'[{"ts": "1767722400.000100", "type": "message"}]', b"31.12.23, 21:05 - Maya left", b"\xff\xfe\x00\xd8"):
        try: found = parse_file(content)
        except DataError: continue
        assert found is None or isinstance(found[1], list)


# --- more messengers -------------------------------------------------------------------------------------------------

PAIR = ["Maya: hi there", "Tom: yes: at 9 and more"]
DASHES = "-" * 15
MORE = {
    "LINE": "[LINE] Chat history with Maya\nSaved on: 2024/03/12 18:10\n\n2024/03/12(Tue)\n18:02\tMaya\thi there\n18:02\tTom\t[Sticker]\n18:03\tTom\t\"yes: at 9\n"
            "and more\"\n18:04\tMaya unsent a message.\n",
    "LINE in Japanese": "[LINE] Mayaとのトーク履歴\n保存日時：2024/03/12 18:10\n\n2024/03/12(火)\n18:02\tMaya\thi there\n18:02\tTom\t[スタンプ]\n18:03\tTom\tyes: at 9 and more\n",
    "LINE in America": "[LINE] Chat history with Maya\nSaved on: 3/12/2024, 6:10 PM\n\nTue, 3/12/2024\n06:02PM\tMaya\thi there\n06:03PM\tTom\tyes: at 9 and more\n",
    "KakaoTalk on a computer": f"KakaoTalk Chats with Maya\nDate Saved : 2024-03-12 18:10:00\n\n{DASHES} Tuesday, March 12, 2024 {DASHES}\n[Maya] [6:02 PM] hi there\n"
                               "[Tom] [6:03 PM] yes: at 9\nand more\n[Maya] [6:04 PM] Photo\n",
    "KakaoTalk in Korean": f"Maya 님과 카카오톡 대화\n저장한 날짜 : 2024-03-12 18:10:00\n\n{DASHES} 2024년 3월 12일 화요일 {DASHES}\n[Maya] [오후 6:02] hi there\n"
                           "[Tom] [오후 6:03] yes: at 9 and more\n[Maya] [오후 6:04] 사진 2장\n",
    "KakaoTalk on a telephone": "2024년 3월 12일 화요일\n2024년 3월 12일 오후 6:02, Maya : hi there\n"
        "2024년 3월 12일 오후 6:03, Tom : yes: at 9 and more\n2024년 3월 12일 오후 6:04, Tom님이 나갔습니다.\n",
    "KakaoTalk in English": "Tuesday, March 12, 2024\nMarch 12, 2024 at 6:02 PM, Maya : hi there\nMarch 12, 2024 at 6:03 PM, Tom : yes: at 9 and more\n",
    "Discord as text": f"{'=' * 62}\nGuild: Zoo\nChannel: Text / birds\n{'=' * 62}\n\n[3/12/2024 6:02 PM] Maya\nhi there\n\n"
        f"[3/12/2024 6:03 PM] Tom (pinned)\nyes: at 9\nand more\n\n"
                       f"{{Reactions}}\n👍\n\n[3/12/2024 6:04 PM] Maya\n\n{{Attachments}}\nhttps://a.org/b.png\n\n{'=' * 62}\nExported 3 message(s)\n{'=' * 62}\n",
    "copied from Discord": "Maya — 12/03/2024 18:02\nhi there\nTom — Today at 6:03 PM\nyes: at 9\nand more\n",
    "iMessage": "Mar 12, 2024  6:02:11 PM\nMaya\nhi there\n\nMar 12, 2024  6:03:11 PM (Read by you after 2 minutes)\nTom\nyes: at 9\nand more\n",
    "QQ": "2024-03-12 18:02:11 Maya(12345)\nhi there\n\n2024-03-12 18:03:11 Tom(54321)\nyes: at 9 and more\n"}


@pytest.mark.parametrize("form", MORE)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_more_messengers(form, encoding, tmp_path):
    row, = read_chats(write(tmp_path, MORE[form].encode(encoding), "chat.txt"))
    assert row["text"].split("\n") == PAIR
    assert "copied" in form or row["start"].startswith("2024-03-12 18:02")


def test_facebook_and_instagram(tmp_path):
    messages = [dict(sender_name="Tom", timestamp_ms=1710266520000, content="yes, caf\u00c3\u00a9"), dict(sender_name="Zo\u00c3\u00ab", timestamp_ms=1710266460000, content="hi"),
                dict(sender_name="Tom", timestamp_ms=1710266470000, content="Liked a message"), dict(sender_name="Tom", timestamp_ms=1710266400000, photos=[{}])]
    path = write(tmp_path, dict(participants=[dict(name="Tom")], messages=messages, title="Tom", magic_words=[]))
    assert texts(tmp_path, json.loads(path.read_text())) == [["Zoë: hi", "Tom: yes, café"]] and dropped(path) == {"media marks": 1, "system lines": 1}
    encrypted = dict(participants=["Maya", "Tom"], threadName="Tom_1", messages=[dict(senderName="Tom", text="yes", timestamp=1710266520000, isUnsent=False),
                     dict(senderName="Maya", text="hi", timestamp=1710266460000, isUnsent=False), dict(senderName="Maya", text="", timestamp=1, isUnsent=True)])
    assert texts(tmp_path, encrypted) == [["Maya: hi", "Tom: yes"]]


def test_google_chat_is_named_after_its_folder(tmp_path):
    said = enumerate([("Maya", "hi"), ("Tom", "yes")])
    room = [dict(creator=dict(name=who), created_date=f"Tuesday, March 12, 2024 at 6:0{i}:11\u202fPM UTC", text=text) for i, (who, text) in said]
    (tmp_path / "Space Zoo").mkdir()
    row, = read_chats(write(tmp_path / "Space Zoo", dict(messages=room), "messages.json"))
    assert (row["id"], row["text"], row["start"]) == ("Space Zoo", "Maya: hi\nTom: yes", "2024-03-12 18:00:11")


def test_slack_answers_are_put_in_order(tmp_path):
    answer = dict(ok=True, messages=[slack("U2", "yes", 60), slack("U1", "hi", 0)], has_more=False)
    assert texts(tmp_path, answer) == [["U1: hi", "U2: yes"]]


LATER = ["このメッセージは削除されました。", "此訊息已刪除", "此消息已删除", "삭제된 메시지입니다.", "यह मैसेज डिलीट किया गया", "تم حذف هذه الرسالة", "הודעה זו נמחקה",
         "Pesan ini telah dihapus",
         "Tato zpráva byla smazána", "Повідомлення видалено", "Tin nhắn này đã bị xóa", "Du tog bort det här meddelandet"]


@pytest.mark.parametrize("mark", LATER)
def test_deleted_messages_of_more_languages(mark, tmp_path):
    path = write(tmp_path, f"12.03.2024, 18:02 - Maya: hi\n12.03.2024, 18:03 - Tom: {mark}\n12.03.2024, 18:04 - Tom: ok")
    assert read_chats(path)[0]["text"] == "Maya: hi\nTom: ok" and dropped(path) == {"deleted messages": 1}


CAPTIONS = {"SBV": "0:00:01.000,0:00:03.000\nMaya: hi\n\n0:00:03.000,0:00:05.000\nTom: yes\n",
            "SRT without numbers": "00:00:01,000 --> 00:00:03,000\nMaya: hi\n\n00:00:03,000 --> 00:00:05,000\nTom: yes\n",
            "SRT with points": "1\n00:00:01.000 --> 00:00:03.000\nMaya: hi\n\n2\n00:00:03.000 --> 00:00:05.000\nTom: yes\n",
            "Webex": 'WEBVTT\n\n1 "Maya" (1234)\n00:00:01.000 --> 00:00:02.000\nhi\n\n2 "Tom" (0)\n00:00:02.000 --> 00:00:03.000\nyes\n',
            "German Zoom chat": "18:02:11 Von Maya an Alle:\n\thi\n18:03:00 Von Tom an Alle:\n\tyes\n",
            "wide colons": "Maya：hi\nTom：yes\nTom：yes\n".replace("Tom：yes\nTom：yes", "Tom：yes\nMaya："),
            "a title above": "Standup - 2024/03/12 18:02 CET - Transcript\nAttendees\nMaya, Tom\nTranscript\nMaya: hi\nTom: yes\nMaya:\n",
            "Otter's footer": "Maya  0:03\nhi\n\nTom  0:05\nyes\n\nTranscribed by https://otter.ai\n"}


@pytest.mark.parametrize("form", CAPTIONS)
def test_more_transcripts(form, tmp_path): assert texts(tmp_path, CAPTIONS[form]) == [["Maya: hi", "Tom: yes"]]


def test_speakers_of_captions_are_not_merged(tmp_path):
    nameless = 'WEBVTT\n\n1 "Maya" (1)\n00:00:01.000 --> 00:00:02.000\nhi\n\n2 "" (0)\n00:00:02.000 --> 00:00:03.000\nyes\n'
    assert texts(tmp_path, nameless) == [["Maya: hi", "Somebody: yes"]]
    with pytest.raises(DataError, match="no line with times"): read_chats(write(tmp_path, "WEBVTT\n\nMaya: hi\n", "cut.vtt"))


LOGS = ["2023-12-31 21:05:12 started the server\n2023-12-31 21:05:13 stopped the server\n", "2023-12-31 21:05:12\nnothing happened\n",
        "Lunch 12:30\nsoup\nDinner 18:30\nbread\n".replace("Lunch", "for lunch at").replace("Dinner", "for dinner at"), "On March 12, 2024 we met.\nIt was late.\n"]


@pytest.mark.parametrize("content", LOGS)
def test_dates_in_other_texts_are_no_stamps(content, tmp_path):
    export = read_export(write(tmp_path, content))
    assert export is None or export[0] == "transcript"


def test_a_zip_with_a_password_is_told(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as z: z.writestr("_chat.txt", (CASES / "whatsapp-ios.txt").read_bytes())
    raw = bytearray((tmp_path / "a.zip").read_bytes())
    raw[6] |= 1
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(raw)
    with pytest.raises(DataError, match="has a password. Unpack it"): read_chats(tmp_path / "a.zip")


@pytest.mark.parametrize("mark", ["このメッセージは編集されました", "此訊息已編輯", "此消息已编辑", "수정된 메시지", "تم تعديل هذه الرسالة", "הודעה זו נערכה", "Pesan ini diedit",
                                  "Tato zpráva byla upravena",
                                  "Повідомлення змінено"])
def test_edited_messages_of_more_languages(mark, tmp_path):
    assert texts(tmp_path, f"12.03.2024, 18:02 - Maya: hi\n12.03.2024, 18:03 - Tom: ok <{mark}>") == [["Maya: hi", "Tom: ok"]]
