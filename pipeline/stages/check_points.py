"""Stage check_points: refuse points that the model does not have before extract starts."""

from pipeline.core.files import write_json
from pipeline.core.points import Point
from pipeline.lm.lock import ModelLock
from pipeline.params.base import read
from pipeline.params.model import check_layers
from pipeline.stages import paths
from pipeline.stages.run import run_stage


def main() -> None:
    points = read("extract.points", list[str])
    check_layers((Point.parse(point) for point in points), ModelLock.read(paths.MODEL_LOCK).layers)
    write_json(paths.POINTS, points)


if __name__ == "__main__":
    run_stage(main, __doc__)
