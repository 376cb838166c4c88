# Cityscapes under $MST_DATA_ROOT/cityscapes: leftImg8bit/{train,val}/,
# gtFine/{train,val}/ with the downloaded *_labelIds.png, prepared *_labelTrainIds.png, or both.
_base_ = "mmseg::_base_/datasets/cityscapes_768x768.py"
data_root = "{{$MST_DATA_ROOT:data}}/cityscapes/"
train_dataloader = dict(batch_size=1, dataset=dict(type="mst_transfer.CityscapesDataset", data_root=data_root))
val_dataloader = dict(dataset=dict(type="mst_transfer.CityscapesDataset", data_root=data_root))
test_dataloader = val_dataloader
