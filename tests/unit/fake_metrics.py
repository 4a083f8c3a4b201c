"""Rows of ``metrics.jsonl`` of constructed runs."""

TEACHER = {"kind": "teacher", "epoch": -1, "cv_loss": 9.0, "cv_accuracy": 0.6,
           "cv_blank_share": 0.95, "cv_filler_share": 0.02}  # fmt: skip


def cv(epoch, **values):
    return {"kind": "cv", "step": 10 * (epoch + 1), "epoch": epoch, "cv_accuracy": 0.5, **values}


def run_of(losses, **series):
    """Rows of epochs -1, 0, 1 ...; series: name -> a value an epoch from 0 on."""
    rows = [cv(-1, cv_loss=losses[0])]
    for epoch, loss in enumerate(losses[1:]):
        rows.append(cv(epoch, cv_loss=loss, **{k: v[epoch] for k, v in series.items()}))
    return rows


def step(epoch, **values):
    return {"kind": "step", "step": 10 * (epoch + 1), "epoch": epoch, **values}


def layered(*norms, **more):
    """A falling loss with layer rows; norms: a mapping an epoch."""
    rows = run_of([90.0 - i for i in range(len(norms) + 1)])
    return rows + [
        {"kind": "layers", "epoch": epoch, "gradient": each, **more}
        for epoch, each in enumerate(norms)
    ]
