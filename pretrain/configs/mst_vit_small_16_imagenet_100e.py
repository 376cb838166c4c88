"""The paper's short schedule: ViT-S/16 (= DeiT-S/16), ImageNet-1k, 100 epochs, effective batch 1024.

16 GPUs: tools/pretrain.sh pretrain/configs/mst_vit_small_16_imagenet_100e.py 16
 8 GPUs: … 8 --cfg-options train_cfg.accumulation_steps=2
"""

_base_ = ["_base_/mst_vit.py", "_base_/runtime.py"]
