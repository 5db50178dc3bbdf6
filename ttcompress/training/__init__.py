"""Fine-tuning: recovers the accuracy that compression cost.

Read `loop` first. `student` is the model it trains, `machine` the devices and processes it runs on,
`resume` saves a run so that it can continue after an interruption; `finetune` combines them.
"""
