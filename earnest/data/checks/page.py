"""The page of ``earnest data check``: each fault with players of its worst clips, in a file that needs nothing else."""

import base64
import io
from collections.abc import Sequence
from dataclasses import replace

import jinja2
import numpy as np
import soundfile

from earnest.data.audio import ClipError, Segment, read_wave
from earnest.data.checks.checked import Checked, Fault
from earnest.data.clip import Clip
from earnest.errors import clean

PLAYERS, PLAYED_S, PLAYED_HZ = 3, 15, 24_000  # of a fault: enough to hear what is meant, in a page that can be mailed

TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; media-src data:">
<title>{{ name }}: data check</title>
<style>
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; overflow-wrap: anywhere; }
h2 { margin: 2rem 0 .25rem; font-size: 1.1rem; }
table { border-collapse: collapse; } td, th { padding: .2rem .8rem .2rem 0; text-align: left; vertical-align: top; }
.critical::before { content: "✗ "; color: #c22; } .warning::before { content: "! "; color: #b70; }
.note::before { content: "· "; }
figure { margin: .75rem 0; } audio { display: block; width: min(30rem, 100%); margin-top: .25rem; }
</style>
</head>
<body>
<h1>{{ name }}</h1>
<p>{{ summary }}</p>
{% if not faults %}<p>Nothing was found.</p>{% endif %}
{% for fault in faults %}
<section>
<h2 class="{{ fault.severity }}">{{ fault.kind }}</h2>
<p>{{ fault.sentence }}.</p>
<p>To mend it: {{ fault.fix }}.</p>
{% for clip, told, audio in players[loop.index0] %}
<figure>
<figcaption>
<strong>{{ clip.name }}</strong>{% if clip.text %} “{{ clip.text[:200] }}”{% endif %} · {{ told }}
</figcaption>
{% if audio %}
<audio controls preload="none" aria-label="{{ fault.kind }}: {{ clip.name }}" src="{{ audio }}"></audio>
{% endif %}
</figure>
{% endfor %}
{% if fault.clips | length > players[loop.index0] | length %}
<details><summary>all {{ fault.clips | length }} clips</summary>
<p>{{ fault.clips | map(attribute="name") | join(", ") }}</p>
</details>
{% endif %}
</section>
{% endfor %}
</body>
</html>
"""


def render(name: str, summary: str, checked: Checked, faults: Sequence[Fault]) -> str:
    players = [[_player(clip, checked) for clip in fault.clips[:PLAYERS]] for fault in faults]
    template = jinja2.Environment(autoescape=True).from_string(TEMPLATE)
    return clean(template.render(name=name, summary=summary, faults=faults, players=players))


def _player(clip: Clip, checked: Checked) -> tuple[Clip, str, str]:
    """The clip, its figures, and its sound as an address that holds it."""
    if clip not in checked.measured:
        return clip, "cannot be read", ""
    measured = checked.measured[clip]
    level = f"peak {measured.peak:.3g} · quietest part {measured.floor_db:.0f} dB"
    told = f"{measured.duration_s:.2f} s · {measured.rate_hz} Hz · {level}"
    try:
        whole = clip.segment or Segment()
        played = replace(whole, duration_s=min(PLAYED_S, whole.duration_s or PLAYED_S))
        wave_N = read_wave(clip.path, min(PLAYED_HZ, measured.rate_hz), 1, played, lambda told: None)
    except ClipError:
        return clip, told, ""
    file = io.BytesIO()
    rate_hz = min(PLAYED_HZ, measured.rate_hz)
    pcm_N = np.clip(np.rint(wave_N[: PLAYED_S * rate_hz] * 32768), -32768, 32767).astype(np.int16)
    soundfile.write(file, pcm_N, rate_hz, format="FLAC", subtype="PCM_16")
    return clip, told, "data:audio/flac;base64," + base64.b64encode(file.getvalue()).decode()
