"""
The style of all pages: one sheet, allowed by its digest and nothing else.

Colours are chosen for contrast (WCAG 2.2, 1.4.3 and 1.4.11): text 4.5:1 or more on
whatever it stands on, edges of controls 3:1, in the light and in the dark.
"""

from base64 import b64encode
from hashlib import sha256
from typing import Final

STYLE: Final = """
:root{color-scheme:light dark;--paper:#f3f4f7;--card:#fff;--ink:#171a1f;--soft:#545d68;
--line:#dadfe5;--edge:#7b8592;--main:#0b57b0;--main-over:#094589;--on-main:#fff;
--well:#f6f7f9;--note:#fff5da;--note-line:#c79a2b;--note-ink:#5c4000;--good:#e4f4e9;
--good-ink:#14592f}
@media (prefers-color-scheme:dark){:root{--paper:#0f1216;--card:#181c22;--ink:#e8ebef;
--soft:#a6b0bc;--line:#313943;--edge:#76818e;--main:#7fb8ff;--main-over:#a5ceff;
--on-main:#06182d;--well:#12161b;--note:#2e2611;--note-line:#8f7226;--note-ink:#f3d68b;
--good:#12301e;--good-ink:#8fdcaa}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0;padding:1.25rem 1rem 3rem;background:var(--paper);color:var(--ink);
font:1rem/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif}
header,main{max-width:35rem;margin:0 auto}
header{display:flex;align-items:center;gap:.5rem;padding:.5rem .25rem 1rem;
color:var(--soft);font-size:.9rem;font-weight:600}
header svg{flex:none;width:1.4rem;height:1.4rem;color:var(--main)}
main{padding:1.75rem 2rem 2rem;background:var(--card);border:1px solid var(--line);
border-radius:1rem;overflow-wrap:anywhere}
h1{margin:0 0 1rem;font-size:1.6rem;line-height:1.2;letter-spacing:-.01em;
text-wrap:balance}
h2{margin:2rem 0 .5rem;font-size:1.1rem;line-height:1.3}
h3{margin:1.25rem 0 .25rem;font-size:1rem}
p,ul,ol{margin:.6rem 0}ul,ol{padding-left:1.25rem}li{margin:.3rem 0}
a{color:var(--main);text-underline-offset:.15em}
.soft{color:var(--soft);font-size:.9rem}
.reference{margin-top:1.75rem;padding-top:1rem;border-top:1px solid var(--line);
color:var(--soft);font-size:.875rem}
.reference p{margin:.25rem 0}.reference code{white-space:nowrap}
.who{margin:1.25rem 0;padding:1rem 1.25rem;background:var(--well);
border:1px solid var(--line);border-radius:.75rem}
.who p{margin:.35rem 0 0}
.who .name{margin:0;font-size:1.15rem;font-weight:650;line-height:1.3}
.badge{display:inline-block;margin:.5rem 0 0;padding:.1rem .65rem;border-radius:1rem;
font-size:.85rem;font-weight:600;background:var(--note);color:var(--note-ink)}
.badge.good{background:var(--good);color:var(--good-ink)}
.target{margin:1.25rem 0 0}
.target p{margin:0;color:var(--soft)}
.target .host{color:var(--ink);font-size:clamp(1.25rem,6.5vw,2.25rem);font-weight:700;
line-height:1.2;letter-spacing:-.015em}
.host .label{display:inline-block;max-width:100%}
.note{display:flex;gap:.75rem;margin:1rem 0;padding:.85rem 1rem;background:var(--note);
color:var(--note-ink);border:1px solid var(--note-line);border-radius:.75rem}
.note svg{flex:none;width:1.35rem;height:1.35rem;margin-top:.1rem}
.note p{margin:0}
dl{margin:.75rem 0;border:1px solid var(--line);border-radius:.75rem}
dl div{padding:.75rem 1.25rem}
dl div+div{border-top:1px solid var(--line)}
dt{font-weight:650}dd{margin:.15rem 0 0}
code,pre{font:.875rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
:not(pre)>code{padding:.1em .35em;background:var(--well);border:1px solid var(--line);
border-radius:.35rem}
pre{margin:.5rem 0 .75rem;padding:.75rem 1rem;background:var(--well);
border:1px solid var(--line);border-radius:.6rem;white-space:pre-wrap;
-webkit-user-select:all;user-select:all;cursor:copy}
.option{white-space:nowrap}
pre.address{font-size:1.05rem;font-weight:600}
details{border:1px solid var(--line);border-top-width:0;padding:0 1.1rem}
h2+details,.first{border-top-width:1px;border-radius:.75rem .75rem 0 0}
.last{border-radius:0 0 .75rem .75rem}.first.last{border-radius:.75rem}
summary{margin:0 -1.1rem;padding:.7rem 1.1rem;font-weight:600;cursor:pointer;
border-radius:.7rem}
summary::marker{color:var(--soft)}
details[open]{padding-bottom:.6rem}
form{margin:1.75rem 0 1.25rem;display:grid;gap:.7rem}
button,a.button{display:block;width:100%;min-height:3rem;padding:.7rem 1.25rem;
border:1px solid var(--edge);border-radius:.65rem;background:transparent;
color:var(--ink);font:inherit;font-weight:600;text-align:center;text-decoration:none;
cursor:pointer}
button:hover,a.button:hover{background:var(--well)}
button.main,a.button.main{background:var(--main);border-color:var(--main);
color:var(--on-main)}
button.main:hover,a.button.main:hover{background:var(--main-over);
border-color:var(--main-over)}
button.plain{border-color:transparent;color:var(--main)}
p>a.button{margin:1.25rem 0}
a.button.small{display:inline-block;width:auto;min-height:0;padding:.45rem 1rem;
margin:.4rem 0 .25rem}
:focus-visible{outline:3px solid var(--main);outline-offset:2px}
summary:focus-visible{outline-offset:-3px}
@media (max-width:30rem){body{padding:.5rem .5rem 2rem}
main{padding:1.25rem 1.1rem 1.5rem}h1{font-size:1.4rem}
header{padding:.5rem .5rem .75rem}.who,dl div{padding-left:1rem;padding-right:1rem}}
@media (forced-colors:active){.badge,button,a.button{border:1px solid}}
"""

#: The sheet as a source of a content security policy (CSP Level 3, section 2.3.1).
STYLE_SOURCE: Final = (
    f"'sha256-{b64encode(sha256(STYLE.encode()).digest()).decode('ascii')}'"
)
