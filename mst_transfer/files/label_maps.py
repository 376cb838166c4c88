import numpy as np
from PIL import Image
def read_label_map(path):
    return np.asarray(Image.open(path))
