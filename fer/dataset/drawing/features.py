"""The features of a face: relief and colours, moved by the action units."""

from __future__ import annotations

import numpy as np

from fer.dataset.drawing.canvas import Canvas, curve, ellipse, mixed, scaled
from fer.dataset.drawing.person import Actions, Look


def shape_relief(canvas: Canvas, look: Look, a: Actions) -> None:
    """The height map: skull, features, and what the muscles bulge and fold."""
    drop = 0.16 * a["AU26"]
    inside = 1 - (canvas.x / (look.width + 0.06)) ** 2 - ((canvas.y - 0.02) / (1.03 + drop)) ** 2
    canvas.height[:] = 0.62 * np.sqrt(np.clip(inside, 0.0, None))
    wrinkle, smile = a["AU9"], a["AU12"]
    rise = -0.1 * a["AU1"] + 0.06 * a["AU4"] - 0.05 * a["AU2"]
    n = look.nose
    for s in (-1, 1):
        gap = s * look.eye_gap
        canvas.bump(gap, -0.43 + rise, 0.2, 0.06, 0.05)
        canvas.bump(gap * 0.92, -0.26, 0.15, 0.085, -0.1)
        canvas.bump(s * 0.14, -0.2, 0.06, 0.09, -0.05)
        canvas.bump(gap, -0.22, 0.11, 0.06, 0.04)
        canvas.bump(s * 0.1 * n, 0.2 - 0.04 * wrinkle, 0.045, 0.05, 0.05 * n)
        lift = 0.09 * max(a["AU6"], 0.7 * smile)
        canvas.bump(s * 0.4, 0.12 - lift, 0.15, 0.13, 0.055 + 0.07 * max(a["AU6"], smile))
        canvas.bump(s * 0.45, 0.52, 0.14, 0.16, -0.03 + 0.02 * smile)
        fold = np.array([
            [0.14 * n, 0.14 - 0.05 * wrinkle],
            [0.24 + 0.05 * smile, 0.27 - 0.06 * wrinkle],
            [0.31 + 0.09 * smile + 0.03 * a["AU10"], 0.47 - 0.04 * smile],
        ])  # fmt: skip
        depth = 0.008 + 0.01 * look.age + 0.035 * max(smile, 0.9 * wrinkle, a["AU10"])
        canvas.height -= depth * canvas.line(curve(fold) * [s, 1], 0.035, 0.022)
        # Crow's feet of a felt smile, and the fold under the eye.
        if a["AU6"] > 0.2 or wrinkle > 0.2:
            bag = np.array([[0.2, -0.12], [look.eye_gap, -0.07], [0.47, -0.12]])
            level = 0.02 * max(a["AU6"], 0.8 * wrinkle)
            canvas.height -= level * canvas.line(curve(bag) * [s, 1], 0.025, 0.015)
        if a["AU15"] > 0.2:
            crease = np.array([[0.27, 0.58], [0.31, 0.66], [0.31, 0.74]])
            canvas.height -= 0.022 * a["AU15"] * canvas.line(curve(crease) * [s, 1], 0.03, 0.018)
        if a["AU4"] > 0.2:
            frown = np.array([[0.055, -0.5], [0.045, -0.42], [0.05, -0.34]])
            canvas.height -= 0.028 * a["AU4"] * canvas.line(curve(frown) * [s, 1], 0.022, 0.012)
    canvas.bump(0, -0.14, 0.05 * n, 0.17, 0.085)
    canvas.bump(0, 0.13 - 0.03 * wrinkle, 0.075 * n, 0.075, 0.14 * n)
    if wrinkle > 0.15:
        for y in (-0.3, -0.23, -0.16):
            bridge = np.array([[-0.1, y - 0.015], [0, y + 0.015], [0.1, y - 0.015]])
            canvas.height -= 0.022 * wrinkle * canvas.line(curve(bridge), 0.018, 0.01)
    if max(a["AU1"], a["AU2"]) > 0.3:
        reach = 0.16 + 0.3 * a["AU2"]
        for y in (-0.64, -0.71):
            brow = np.array([[-reach, y + 0.01], [0, y - 0.01], [reach, y + 0.01]])
            level = 0.016 * max(a["AU1"], a["AU2"]) * (0.4 + look.age)
            canvas.height -= level * canvas.line(curve(brow), 0.02, 0.012)
    jaw = 0.5 * drop
    canvas.bump(0, 0.5 + jaw, 0.2, 0.14, 0.04)
    canvas.bump(0, 0.34, 0.022, 0.05, -0.014)
    canvas.bump(0, 0.66 + 1.3 * drop, 0.12, 0.035, -0.035 - 0.03 * a["AU17"])
    canvas.bump(0, 0.82 + drop, 0.13, 0.09, 0.06 + 0.03 * a["AU17"])


def paint_skin(canvas: Canvas, look: Look, a: Actions) -> None:
    """What one lamp leaves out: dark in sockets and under the nose, blush, beard."""
    shadow = scaled(look.skin, 0.45)
    blush = (look.skin[0] * 0.78, look.skin[1] * 0.8, min(1.0, look.skin[2] * 1.02))
    for s in (-1, 1):
        gap = s * look.eye_gap
        canvas.paint(canvas.spot(gap * 0.95, -0.29, 0.17, 0.075), shadow, 0.5)
        canvas.paint(canvas.spot(s * 0.13, -0.24, 0.05, 0.1), shadow, 0.4)
        canvas.paint(canvas.spot(gap, -0.1, 0.13, 0.03), shadow, 0.16 + 0.15 * look.age)
        canvas.paint(canvas.spot(s * 0.42, 0.15, 0.14, 0.1), blush, 0.35)
        nostril = ellipse(s * 0.06 * look.nose, 0.225 - 0.035 * a["AU9"], 0.034, 0.02)
        canvas.paint(canvas.area(nostril, 0.01), scaled(look.skin, 0.14), 0.9)
        wing = np.array([[0.125, 0.13], [0.155, 0.19], [0.12, 0.245]]) * [s * look.nose, 1]
        wing[:, 1] -= 0.04 * a["AU9"]
        canvas.paint(canvas.line(curve(wing), 0.025, 0.015), shadow, 0.6)
        side = np.array([[0.07, -0.16], [0.085, 0.0], [0.1, 0.1]]) * [s * look.nose, 1]
        canvas.paint(canvas.line(curve(side), 0.04, 0.03), shadow, 0.25)
    canvas.paint(canvas.spot(0, 0.25 - 0.03 * a["AU9"], 0.09, 0.03), shadow, 0.75)
    canvas.paint(canvas.spot(0, 0.68 + 0.2 * a["AU26"], 0.13, 0.03), shadow, 0.4)
    highlight = mixed(look.skin, (1.0, 1.0, 1.0), 0.5)
    canvas.paint(canvas.spot(0, 0.1, 0.03, 0.05), highlight, 0.5)
    canvas.paint(canvas.spot(0, -0.12, 0.025, 0.13), highlight, 0.4)
    if look.beard:
        drop = 0.16 * a["AU26"]
        below = canvas.y - 0.25
        jaw = np.clip(below * 4, 0, 1) * np.clip(np.hypot(canvas.x, below) / 0.34 - 0.6, 0, 1)
        moustache = canvas.spot(0, 0.36, 0.16, 0.035)
        chin = canvas.spot(0, 0.8 + drop, 0.2, 0.1)
        field = np.clip(jaw + moustache + chin, 0, 1).astype(np.float32)
        canvas.paint(field, look.hair, look.beard)


def paint_eyes(canvas: Canvas, look: Look, a: Actions) -> None:
    """Eyes between lids that widen, tighten and slant."""
    rng = np.random.default_rng(look.seed)
    gaze = rng.normal(0, 0.018, 2)
    wide, narrow = a["AU5"], max(a["AU7"], 0.6 * a["AU43"])
    closing = 0.22 * a["AU6"] + 0.25 * a["AU9"]
    up = look.eye_size * 0.088 * (1 + 0.55 * wide - 0.5 * narrow - closing)
    squint = 0.5 * a["AU7"] + 0.55 * a["AU6"] + 0.4 * a["AU9"]
    low = look.eye_size * 0.055 * (1 + 0.3 * wide - squint)
    half = 0.152 * look.eye_size
    lash = mixed(look.hair, (0.03, 0.03, 0.04), 0.75)
    for s in (-1, 1):
        centre = np.array([s * look.eye_gap, -0.215])
        # Sadness slants the upper lid down outwards; anger down inwards.
        slant = 0.03 * a["AU1"] * (1 - a["AU2"]) - 0.03 * a["AU4"] * (1 - a["AU1"])
        t = np.linspace(-1, 1, 25)
        arch = (1 - np.abs(t) ** 2.2) ** 0.75
        upper = np.stack([s * t * half, -up * arch + slant * t * arch - 0.012 * t], 1) + centre
        lower = np.stack([s * t * half, low * arch - 0.012 * t], 1) + centre
        opening = canvas.area(np.concatenate([upper, lower[::-1]]), 0.004)
        canvas.paint(opening, (0.86, 0.88, 0.88))
        canvas.paint(
            opening * canvas.spot(centre[0] + s * half, centre[1], 0.06, 0.1), (0.5, 0.5, 0.56), 0.5
        )
        pupil = centre + gaze + [0, -0.012]
        iris = opening * canvas.area(ellipse(pupil[0], pupil[1], 0.076, 0.076), 0.004)
        canvas.paint(iris, scaled(look.iris, 0.75))
        canvas.paint(
            iris * canvas.spot(pupil[0], pupil[1] + 0.03, 0.05, 0.03),
            scaled(look.iris, 1.7),
            0.6,
        )
        canvas.paint(
            opening * canvas.area(ellipse(pupil[0], pupil[1], 0.034, 0.034)), (0.02, 0.02, 0.02)
        )
        canvas.paint(
            opening * canvas.line(upper + np.array([0, 0.02]), 0.04, 0.012),
            (0.05, 0.06, 0.08),
            0.55,
        )
        glint = ellipse(pupil[0] - 0.022, pupil[1] - 0.024, 0.015, 0.015)
        canvas.paint(opening * canvas.area(glint), (1.0, 1.0, 1.0), 0.9)
        canvas.paint(canvas.line(upper, 0.026, 0.006), lash, 0.9)
        canvas.paint(canvas.line(lower, 0.012, 0.006), scaled(look.skin, 0.35), 0.6)
        crease = upper + np.array([0, -0.035 - 0.01 * wide])
        canvas.paint(canvas.line(crease[2:-1], 0.016, 0.008), scaled(look.skin, 0.4), 0.55)


def paint_brows(canvas: Canvas, look: Look, a: Actions) -> None:
    """Brows, raised or lowered at either end and drawn together."""
    colour = mixed(look.hair, (0.05, 0.05, 0.06), 0.45)
    inner, outer, lower = a["AU1"], a["AU2"], a["AU4"]
    squeeze = a["AU9"]
    for s in (-1, 1):
        # Lowering and raising the inner end at once gives the oblique brow of sadness and fear.
        path = np.array([
            [
                0.15 - 0.06 * lower,
                -0.405 - 0.17 * inner + 0.1 * lower * (1 - 0.8 * inner) + 0.06 * squeeze,
            ],
            [
                0.27 - 0.03 * lower,
                -0.435 - 0.12 * inner - 0.03 * outer + 0.08 * lower * (1 - inner) + 0.04 * squeeze,
            ],
            [0.41, -0.44 - 0.02 * inner - 0.11 * outer + 0.03 * lower],
            [0.54, -0.375 + 0.02 * inner - 0.09 * outer + 0.02 * lower],
        ])  # fmt: skip
        middle = curve(path)
        t = np.linspace(0, 1, len(middle))
        thick = (
            0.034
            * look.brow
            * np.minimum(1, (1.05 - t) * 1.9)
            * (0.75 + 0.25 * np.minimum(1, t * 5))
        )
        edge = np.stack([0 * t, thick], 1)
        shape = np.concatenate([middle - edge, (middle + edge)[::-1]])
        canvas.paint(canvas.area(shape * [s, 1], 0.014), colour, 0.88)


def paint_mouth(canvas: Canvas, look: Look, a: Actions) -> None:
    """Lips, and teeth and dark where they part."""
    smile, down, stretch = a["AU12"], a["AU15"], a["AU20"]
    drop, tight, chin = a["AU26"], a["AU23"], a["AU17"]
    raised = max(a["AU10"], 0.5 * a["AU9"])
    half = (
        0.255
        * look.mouth
        * (1 + 0.3 * smile + 0.28 * stretch - 0.16 * drop - 0.1 * tight - 0.06 * chin)
    )
    corner = 0.5 - 0.12 * smile + 0.11 * down + 0.03 * stretch + 0.07 * drop + 0.02 * raised
    rest = 0.485 + 0.02 * smile - 0.045 * chin * (1 - raised) - 0.03 * down
    gap = 0.004 + 0.3 * drop + a["AU25"] * (0.055 + 0.05 * smile + 0.06 * stretch) + 0.05 * raised
    top = rest - 0.055 * raised - 0.1 * gap - 0.015 * smile * a["AU25"]
    bottom = rest + 0.9 * gap
    full = look.lips * (1 - 0.6 * tight) * (1 - 0.25 * smile)
    t = np.linspace(-1, 1, 33)
    bend = 1 - np.abs(t) ** (2.0 + 1.2 * drop)
    square = 1 - np.abs(t) ** (2.0 + 2.0 * stretch + 2.0 * raised)
    bow = np.exp(-((np.abs(t) - 0.22) ** 2) / 0.02) * 0.012 - np.exp(-(t**2) / 0.01) * 0.008
    inner_top = np.stack([t * half, corner + (top - corner) * square], 1)
    inner_bottom = np.stack([t * half, corner + (bottom - corner) * bend], 1)
    taper = (1 - np.abs(t) ** 3) ** 0.8
    outer_top = inner_top - np.stack([0 * t, (0.05 * full + bow * full) * taper + 0.004], 1)
    outer_bottom = inner_bottom + np.stack([0 * t, 0.075 * full * (1 - t**2) + 0.004], 1)
    lip = (look.skin[0] * 0.52, look.skin[1] * 0.5, look.skin[2] * 0.72)
    upper = canvas.area(np.concatenate([outer_top, inner_top[::-1]]), 0.008)
    lower = canvas.area(np.concatenate([inner_bottom, outer_bottom[::-1]]), 0.008)
    canvas.paint(upper, scaled(lip, 0.82))
    canvas.paint(lower, lip)
    shine = canvas.spot(0.0, bottom + 0.04 * full, half * 0.4, 0.015)
    canvas.paint(lower * shine, mixed(lip, (1.0, 1.0, 1.0), 0.5), 0.5)
    opening = canvas.area(np.concatenate([inner_top, inner_bottom[::-1]]), 0.004)
    dark = (0.07, 0.06, 0.12)
    canvas.paint(opening, dark, 1.0 if gap > 0.02 else 0.0)
    if gap > 0.03:
        show = min(0.085, 0.75 * gap) * (1 - 0.5 * drop)
        teeth = np.concatenate([inner_top, (inner_top + np.array([0, show]))[::-1]])
        edge = np.clip(1 - (canvas.x / (half * 0.92)) ** 4, 0, 1).astype(np.float32)
        canvas.paint(opening * canvas.area(teeth, 0.006) * edge, (0.78, 0.84, 0.87), 0.92)
        if stretch > 0.3:
            # Fear bares the lower teeth too.
            row = np.concatenate([inner_bottom, (inner_bottom - [0, 0.3 * gap])[::-1]])
            canvas.paint(opening * canvas.area(row, 0.008) * edge, (0.66, 0.72, 0.76), 0.7)
    if drop > 0.35:
        tongue = ellipse(0, bottom - 0.03, half * 0.6, 0.07)
        canvas.paint(opening * canvas.area(tongue, 0.02), (0.25, 0.24, 0.5), 0.7)
    seam = inner_top if gap <= 0.03 else np.concatenate([inner_top, inner_bottom[::-1]])
    canvas.paint(canvas.line(seam, 0.02, 0.007), scaled(look.skin, 0.16), 0.85)
    for s in (-1, 1):
        pit = canvas.spot(s * (half + 0.01), corner, 0.025, 0.022)
        canvas.paint(pit, scaled(look.skin, 0.3), 0.55)
