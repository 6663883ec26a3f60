from soundfold.api import Run as Run
from soundfold.api import cross_validate as cross_validate
from soundfold.api import load_run as load_run
from soundfold.inference.prediction import Prediction as Prediction
from soundfold.inference.predictor import Predictor as Predictor

__version__: str
__all__ = ["Prediction", "Predictor", "Run", "cross_validate", "load_run"]
